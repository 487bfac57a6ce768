// The list of studies: finds while one types, reads large studies after the page is there, keeps running ones up to date,
// and compares those that are chosen.
"use strict";
(function () {
  const PAUSE = 4000, LOOK = 10000;
  const busy = new Set();
  function rows() { return Array.from(document.querySelectorAll("tr[data-study]")); }
  async function refresh(row) {
    const name = row.dataset.study;
    if (busy.has(name)) return;
    busy.add(name);
    try {
      const answer = await fetch("/studies/" + encodeURIComponent(name) + "/row");
      if (!answer.ok) return;
      const found = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("tr");
      if (!found) return;
      const chosen = row.querySelector("input[type=checkbox]").checked;
      const focused = document.activeElement && row.contains(document.activeElement) ? document.activeElement.tagName : null;
      row.replaceChildren.apply(row, Array.from(document.importNode(found, true).children));
      delete row.dataset.unread;
      row.dataset.status = found.dataset.status;
      row.querySelector("input[type=checkbox]").checked = chosen;
      if (focused) row.querySelector(focused === "A" ? "a" : "input").focus();
      if (found.dataset.status !== "running") live.close(row);
    } finally {
      busy.delete(name);
    }
  }
  function follow(row) {
    let waiting = null, last = 0;
    row.addEventListener("changed", function () {
      if (waiting || document.hidden) return;
      waiting = setTimeout(function () { waiting = null; last = Date.now(); refresh(row); }, Math.max(0, last + PAUSE - Date.now()));
    });
  }
  async function look() { // what came since, and what began or ended without this page being told
    try {
      const answer = document.hidden ? null : await fetch(location.pathname + location.search);
      const page = answer && answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
      const body = document.querySelector("#studies tbody");
      if (page) Array.from(page.querySelectorAll("tr[data-study]")).forEach(function (found, place) {
        const old = rows().find(function (row) { return row.dataset.study === found.dataset.study; });
        if (!old) {
          const row = document.importNode(found, true);
          body.insertBefore(row, body.children[place] || null);
          follow(row);
          live.listen(row);
        } else if (old.dataset.status !== found.dataset.status || Boolean(old.dataset.live) !== Boolean(found.dataset.live)) {
          live.close(old);
          delete old.dataset.live;
          if (found.dataset.live) old.dataset.live = found.dataset.live;
          refresh(old).then(function () { live.listen(old); });
        }
      });
      find(document.getElementById("filter").value);
    } catch (error) { /* the server is away for a moment */ }
    setTimeout(look, LOOK);
  }
  function find(text) {
    let shown = 0;
    rows().forEach(function (row) {
      const fits = row.dataset.text.toLowerCase().includes(text.toLowerCase().trim());
      row.hidden = !fits;
      shown += fits;
    });
    document.getElementById("none").classList.toggle("hidden", shown > 0);
  }
  function compared() {
    return rows().filter(function (row) { return row.querySelector("input:checked"); }).map(function (row) { return row.dataset.study; });
  }
  document.addEventListener("DOMContentLoaded", async function () {
    const box = document.getElementById("filter"), button = document.getElementById("compare");
    if (!box) return;
    box.addEventListener("input", function () { find(box.value); });
    document.getElementById("tools").addEventListener("submit", function (event) { event.preventDefault(); });
    find(box.value);
    function count() {
      const names = compared();
      button.disabled = names.length < 2;
      button.classList.toggle("primary", names.length > 1);
      button.textContent = names.length < 2 ? "Compare: choose two or more" : "Compare " + names.length + " studies";
    }
    document.getElementById("studies").addEventListener("change", count);
    count();
    button.addEventListener("click", function () {
      location.href = "/compare?" + compared().map(function (name) { return "study=" + encodeURIComponent(name); }).join("&");
    });
    rows().forEach(follow);
    for (const row of rows()) if (row.dataset.unread !== undefined) await refresh(row);
    setTimeout(look, LOOK);
  });
})();
