// The comparison's address holds all of its choices, so that it can be kept and sent. <a data-set="key=value"> and
// <select data-set="key"> change one of them, data-remove="STUDY" takes a study away, the form gives them all.
"use strict";
(function () {
  function go(query, anchor) {
    location.href = "/compare?" + query.toString() + (anchor || "");
  }
  function here() {
    return new URLSearchParams(location.search);
  }
  function set(key, value, anchor) {
    const query = here();
    if (value === "") query.delete(key);
    else query.set(key, value);
    go(query, anchor);
  }
  function submit(event) {
    event.preventDefault();
    const form = event.target;
    const query = here();
    query.delete("study");
    query.delete("group");
    form.querySelectorAll('input[name="study"]:checked').forEach(function (box) { query.append("study", box.value); });
    const way = form.elements.group.value;
    if (way === "hand") {
      form.elements.by_hand.value.split("\n").forEach(function (line) {
        if (line.trim()) query.append("group", line.trim());
      });
    } else if (way !== "seeds") {
      query.append("group", way);
    }
    go(query);
  }
  async function copy() {
    try {
      await navigator.clipboard.writeText(location.href);
      posting.say("the link is copied");
    } catch (error) {
      window.prompt("The link to this comparison", location.href);
    }
  }
  document.addEventListener("click", function (event) {
    const link = event.target.closest("a[data-set]");
    const away = event.target.closest("[data-remove]");
    if (link) {
      event.preventDefault();
      const parts = link.dataset.set.split("=");
      set(parts[0], parts[1], link.hash);
    } else if (away) {
      const query = here();
      const left = query.getAll("study").filter(function (name) { return name !== away.dataset.remove; });
      query.delete("study");
      left.forEach(function (name) { query.append("study", name); });
      go(query);
    }
  });
  document.addEventListener("DOMContentLoaded", function () {
    const form = document.getElementById("picker");
    const filter = document.getElementById("filter");
    const button = document.getElementById("copy");
    document.querySelectorAll("select[data-set]").forEach(function (select) {
      select.addEventListener("change", function () { set(select.dataset.set, select.value, "#front"); });
    });
    if (button) button.addEventListener("click", copy);
    if (form) {
      form.addEventListener("submit", submit);
      form.elements.group.addEventListener("change", function (event) {
        document.getElementById("hand").hidden = event.target.value !== "hand";
      });
    }
    if (filter) {
      filter.addEventListener("input", function () {
        const word = filter.value.toLowerCase();
        form.querySelectorAll(".choices label").forEach(function (label) {
          label.hidden = !label.textContent.toLowerCase().includes(word);
        });
      });
      filter.addEventListener("keydown", function (event) { if (event.key === "Enter") event.preventDefault(); });
    }
  });
})();
