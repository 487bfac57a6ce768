// Light or dark: what the visitor chose, else what the system says. Loaded before the page is drawn, so nothing flashes.
"use strict";
(function () {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  function kept(value) { // storage may be forbidden: then the choice lasts for the page
    try {
      if (value) localStorage.setItem("theme", value);
      return localStorage.getItem("theme");
    } catch (error) { return value || null; }
  }
  function tell() { document.dispatchEvent(new Event("themechange")); }
  const chosen = kept();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  system.addEventListener("change", function () { if (!root.dataset.theme) tell(); });
  document.addEventListener("DOMContentLoaded", function () {
    const button = document.getElementById("theme");
    if (!button) return;
    button.addEventListener("click", function () {
      const now = root.dataset.theme || (system.matches ? "dark" : "light");
      root.dataset.theme = now === "dark" ? "light" : "dark";
      kept(root.dataset.theme);
      tell();
    });
  });
})();
// Plotly brings a style sheet for maps, which no page draws and the pages' policy refuses; it leaves it out, and with it
// a complaint in the console, where an element with its id is there already.
(function () {
  const none = document.createElement("template");
  none.id = "9f215cf04c5486422605d13261cb87401f4e7763b6296af81e98efbc0130da53";
  document.head.append(none);
})();
