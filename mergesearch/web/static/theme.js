// Light or dark: what the visitor chose, else what the system says. Loaded before the page is drawn, so nothing flashes.
"use strict";
(function () {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  document.addEventListener("DOMContentLoaded", function () {
    document.getElementById("theme").addEventListener("click", function () {
      const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark") &&
        (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
      document.documentElement.dataset.theme = dark ? "light" : "dark";
      localStorage.setItem("theme", document.documentElement.dataset.theme);
      document.dispatchEvent(new Event("themechange"));
    });
  });
})();
