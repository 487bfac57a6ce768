// The page of a study: selectors of its charts, the preference that picks a merge of the front, the table's pages, and
// what changes while the study runs.
"use strict";
(function () {
  function $(id) { return document.getElementById(id); }
  function chartUrl(element, options) {
    const query = new URLSearchParams(options).toString();
    return element.dataset.chart.split("?")[0] + (query ? "?" + query : "");
  }

  // ---- the front's selectors -------------------------------------------------------------------------------------
  function frontOptions() {
    const options = {};
    $("front-tools").querySelectorAll("select").forEach(function (s) { if (s.value) options[s.name] = s.value; });
    if ($("front-tools").querySelector("[name=errors]").checked) options.errors = "1";
    return options;
  }
  function setFront(event) {
    const selects = Array.from($("front-tools").querySelectorAll("select")).filter(function (s) { return "xyz".includes(s.name); });
    const changed = event.target, names = Array.from(selects[0].options, function (o) { return o.value; });
    if (selects.includes(changed)) { // no objective on two axes: the other one gives way
      selects.forEach(function (other) {
        if (other === changed || !other.value || other.value !== changed.value) return;
        const taken = selects.map(function (s) { return s === other ? null : s.value; });
        other.value = names.find(function (name) { return !taken.includes(name); }) || "";
      });
    }
    charts.set($("front"), chartUrl($("front"), frontOptions()));
  }

  // ---- the preference --------------------------------------------------------------------------------------------
  let front = null, held = null; // `held`: the number of a merge that is shown whatever the weights are
  function sliders() { return Array.from($("sliders").querySelectorAll("input")); }
  function weights() {
    const given = sliders().map(function (s) { return Number(s.value); });
    const sum = given.reduce(function (a, b) { return a + b; }, 0);
    return given.map(function (w) { return sum > 0 ? w / sum : 1 / given.length; });
  }
  function choose() {
    const share = weights();
    sliders().forEach(function (s, i) {
      const text = Math.round(100 * share[i]) + " %";
      s.parentElement.querySelector("output").textContent = text;
      s.setAttribute("aria-valuetext", text);
    });
    if (!front) return;
    let at = -1, least = Infinity;
    front.scaled.forEach(function (row, i) {
      let sum = 0;
      for (let k = 0; k < row.length; k++) sum += share[k] * row[k];
      if (sum < least) { least = sum; at = i; }
    });
    const kept = front.numbers.indexOf(held);
    pick(kept < 0 ? at : kept);
  }
  function pick(at) {
    const number = front.numbers[at];
    const rows = front.objectives.map(function (words, k) {
      const row = document.createElement("tr");
      [words, front.texts[at][k]].forEach(function (text) { row.insertCell().textContent = text; });
      return row;
    });
    $("picked").textContent = "#" + number;
    $("picked-note").textContent = number === front.knee ? "the knee" : "";
    $("picked-scores").replaceChildren.apply($("picked-scores"), rows);
    $("picked-links").classList.remove("hidden");
    const box = $("preference").dataset;
    $("picked-open").href = box.candidates + number;
    $("picked-recipe").href = box.api + number + "/recipe.yaml";
    $("picked-mergekit").href = box.api + number + "/mergekit.yaml";
    ring(at);
  }
  function ring(at) {
    const element = $("front"), options = frontOptions();
    const names = Array.from($("front-tools").querySelector("[name=x]").options, function (o) { return o.value; });
    const shown = ["x", "y", "z"].filter(function (axis) { return options[axis]; });
    const three = shown.length === 3;
    const trace = {
      type: three ? "scatter3d" : "scatter", mode: "markers", name: "your preference", hoverinfo: "skip",
      customdata: [front.numbers[at]], text: ["#" + front.numbers[at]],
      marker: { symbol: "circle-open", size: three ? 11 : 24, color: "#e69f00", line: { width: 4, color: "#e69f00" } },
    };
    shown.forEach(function (axis) { trace[axis] = [front.shown[at][names.indexOf(options[axis])]]; });
    element.extra = (options.split || "search") === "search" ? [trace] : [];
    if (element.chart && !element.drawing) {
      element.drawing = true;
      requestAnimationFrame(function () { element.drawing = false; move(element, trace, three); });
    }
  }
  function move(element, trace, three) {
    const at = element.data ? element.data.findIndex(function (t) { return t.name === trace.name; }) : -1;
    if (three || at < 0 || !element.extra.length) { charts.draw(element); return; }
    Plotly.restyle(element, { x: [trace.x], y: [trace.y], customdata: [trace.customdata] }, [at]);
  }
  async function readFront() {
    const answer = await fetch($("preference").dataset.url);
    front = answer.ok ? await answer.json() : null;
    sliders().forEach(function (s) { s.disabled = !front; });
    if (front) choose();
  }
  function even() {
    held = null;
    sliders().forEach(function (s) { s.value = 50; });
    choose();
  }
  function showKnee() {
    held = front ? front.knee : null;
    if (front) choose();
  }
  function startFront() {
    $("front-tools").addEventListener("change", setFront);
    $("front-tools").addEventListener("change", function () { if (front) choose(); });
    sliders().forEach(function (s) { s.addEventListener("input", function () { held = null; choose(); }); });
    $("even").addEventListener("click", even);
    if ($("at-knee")) $("at-knee").addEventListener("click", showKnee);
    readFront();
  }

  // ---- choices outlive a reload, which the page does by itself when the study ends or goes on, and the way back ----
  const KEPT = "choices of " + location.pathname;
  function fields() { return Array.from(document.querySelectorAll("#front-tools select, #front-tools input, #sliders input, #against, #colour, #resume-form input")); }
  function keyOf(field) { return field.id || field.name || "weight " + field.dataset.objective; }
  function keep() {
    const kept = { held: held };
    fields().forEach(function (f) { kept[keyOf(f)] = f.type === "checkbox" ? f.checked : f.value; });
    try { sessionStorage.setItem(KEPT, JSON.stringify(kept)); } catch (error) { /* forbidden: they are lost, no more */ }
  }
  function restore() {
    const came = performance.getEntriesByType("navigation")[0];
    let kept = null;
    try { kept = JSON.parse(sessionStorage.getItem(KEPT)); } catch (error) { kept = null; }
    if (came && came.type === "navigate") kept = null;
    if (kept) {
      held = kept.held;
      fields().forEach(function (f) {
        const value = kept[keyOf(f)];
        if (value === undefined) return;
        if (f.type === "checkbox") f.checked = value;
        else if (!f.options || Array.from(f.options).some(function (o) { return o.value === value; })) f.value = value;
      });
    }
    if (!fields().some(chosen)) return;
    if ($("front")) $("front").dataset.chart = chartUrl($("front"), frontOptions());
    curves().forEach(function (chart) { chart.dataset.chart = chartUrl(chart, { against: $("against").value }); });
    if ($("colour") && $("parallel")) $("parallel").dataset.chart = chartUrl($("parallel"), { colour: $("colour").value });
  }
  function chosen(field) {
    if (field.type === "checkbox") return field.checked !== field.defaultChecked;
    if (!field.options) return false;
    const first = Array.from(field.options).find(function (o) { return o.defaultSelected; }) || field.options[0];
    return field.value !== first.value;
  }
  function curves() { return ["convergence", "hypervolume"].map($).filter(Boolean); }

  // ---- the table -------------------------------------------------------------------------------------------------
  async function turn(url, back) {
    const box = $("table");
    box.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(url);
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const focused = document.activeElement && box.contains(document.activeElement) ? document.activeElement.textContent : null;
      box.replaceChildren.apply(box, Array.from(document.importNode(page.body, true).childNodes));
      if (focused) {
        const again = Array.from(box.querySelectorAll("a")).find(function (a) { return a.textContent === focused; });
        if (again) again.focus({ preventScroll: true });
      }
      box.dataset.shown = url;
      if (back) history.replaceState(null, "", back);
    } finally {
      box.removeAttribute("aria-busy");
    }
  }
  function startTable() {
    const box = $("table");
    box.dataset.shown = box.dataset.url + location.search;
    box.addEventListener("click", function (event) {
      const link = event.target.closest("a");
      const href = link && link.getAttribute("href");
      if (!href || href[0] !== "?" || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      const query = href.split("#")[0];
      turn(box.dataset.url + query, query);
    });
  }

  // ---- what changes ----------------------------------------------------------------------------------------------
  const LINES = 200;
  function addLines(detail, candidates) {
    const log = $("log");
    const atTop = log.scrollTop < 20;
    log.querySelectorAll("li:not([class]), li.muted").forEach(function (li) { li.remove(); });
    detail.lines.forEach(function (line) {
      const item = document.createElement("li"), link = document.createElement("a");
      item.className = line.kind;
      link.href = candidates + line.number;
      link.textContent = "#" + line.number;
      item.append(link, " " + line.split + ": " + line.text);
      log.prepend(item);
    });
    while (log.children.length > LINES) log.lastElementChild.remove();
    if (atTop) log.scrollTop = 0;
  }
  async function ended() { // its process has said so, but still closes its files: after that it can be resumed
    const answer = await fetch(location.pathname).catch(function () { return null; });
    const page = answer && answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
    const now = page && page.getElementById("study");
    if (now && now.dataset.ending === undefined) location.reload();
    else setTimeout(ended, 1500);
  }
  async function freshen() { // what only the server can write: tables of seconds, failures, what is under way
    const answer = await fetch(location.pathname);
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelectorAll("[data-fresh]").forEach(function (old) {
      const found = page.getElementById(old.id);
      if (!found || found.innerHTML === old.innerHTML || old.contains(document.activeElement)) return;
      const inner = old.querySelector(".scroll"), top = inner ? inner.scrollTop : 0;
      old.replaceChildren.apply(old, Array.from(document.importNode(found, true).childNodes));
      if (top && old.querySelector(".scroll")) old.querySelector(".scroll").scrollTop = top;
    });
  }
  function startLive(root) {
    const candidates = "/studies/" + root.dataset.study + "/candidates/";
    let status = root.dataset.status, seen = null, size = null, table = null, parts = null;
    let lastSeq = null;
    if (root.dataset.ending !== undefined) ended();
    root.addEventListener("log", function (event) {
      const lines = event.detail.lines.filter(function (line) { return lastSeq === null || line.seq > lastSeq; });
      if (lines.length) lastSeq = lines[lines.length - 1].seq;
      addLines({ lines: lines }, candidates);
    });
    root.addEventListener("changed", function (event) {
      const now = event.detail;
      if (now.status !== status) { location.reload(); return; }
      const best = $("best");
      if (best && now.best_number !== null) best.href = candidates + now.best_number;
      if (seen !== null && now.version !== seen) {
        charts.stale(document.querySelectorAll("#front, #convergence, #hypervolume, #parallel, #timing, #fit"));
        if (now.front_size !== size && $("preference")) setTimeout(readFront, 500);
        if (!table && !document.hidden) table = setTimeout(function () { table = null; turn($("table").dataset.shown); }, 5000);
        if (!parts && !document.hidden) parts = setTimeout(function () { parts = null; freshen().catch(function () {}); }, 8000);
        if (document.querySelector(".empty") && now.best !== null) { location.reload(); return; }
      }
      seen = now.version;
      size = now.front_size;
    });
  }

  document.addEventListener("DOMContentLoaded", function () {
    restore();
    addEventListener("pagehide", keep);
    if ($("front")) startFront();
    if ($("against")) $("against").addEventListener("change", function () {
      curves().forEach(function (chart) { charts.set(chart, chartUrl(chart, { against: $("against").value })); });
    });
    if ($("colour")) $("colour").addEventListener("change", function () {
      charts.set($("parallel"), chartUrl($("parallel"), { colour: $("colour").value }));
    });
    startTable();
    startLive($("study"));
  });
})();
