// Draws every element <div class="chart" data-chart="URL"> from the JSON {data, layout, summary} that its URL gives, once
// it comes into view. Colours of text and grid are the page's CSS variables, so charts follow light and dark.
// What others can use:
//   charts.redraw(element)         fetches again; charts.set(element, url) with another URL; both give a promise
//   charts.stale(elements)         redraws those in view at most every 3 s, the others once they are looked at
//   element.extra = [traces]       drawn over the chart's own; charts.draw(element) after a change of them
//   event "drawn" on the element   after each drawing
// A click on a point whose customdata is a candidate's number opens that candidate's page, if the element has
// data-candidates="/studies/NAME/candidates/". Three dimensions are drawn by solid.js, without WebGL.
"use strict";
const charts = (function () {
  const PAUSE = 3000;
  const narrow = matchMedia("(max-width: 760px)");
  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }
  function themed(layout) {
    const axis = {
      gridcolor: css("--grid"), zerolinecolor: css("--grid"), linecolor: css("--faint"), automargin: true,
      title: { font: { size: 13 } }, tickfont: { size: 12 },
    };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--ink"), size: 12.5, family: getComputedStyle(document.body).fontFamily },
      margin: { l: 48, r: narrow.matches ? 12 : 34, t: 12, b: 40 }, hovermode: "closest", autosize: true, dragmode: narrow.matches ? false : "zoom",
      legend: { orientation: "h", y: 1.01, yanchor: "bottom", x: 0, itemsizing: "constant", font: { size: 12 } },
      hoverlabel: { bgcolor: css("--card"), bordercolor: css("--grid"), font: { color: css("--ink"), size: 13 }, align: "left" },
    };
    base.modebar = { orientation: "v", bgcolor: "rgba(0,0,0,0)", color: css("--faint"), activecolor: css("--accent") };
    if (narrow.matches) Object.assign(base.legend, { entrywidth: 88, font: { size: 11 } });
    const made = Object.assign(base, layout);
    for (const key of Object.keys(made)) {
      if (!/^[xy]axis\d*$/.test(key)) continue;
      const own = made[key];
      made[key] = Object.assign({}, axis, own, { title: Object.assign({}, axis.title, own.title) });
    }
    return made;
  }
  function say(element, text) {
    if (window.Plotly && element.classList.contains("js-plotly-plot")) Plotly.purge(element);
    element.classList.remove("js-plotly-plot");
    const note = document.createElement("p");
    note.className = "wait";
    note.textContent = text;
    element.replaceChildren(note);
  }
  function plotly() { // its script may come after this one
    const script = document.querySelector('script[src^="/static/plotly.min.js"]');
    return window.Plotly || !script ? Promise.resolve() : new Promise(function (go) {
      script.addEventListener("load", go);
      script.addEventListener("error", go);
    });
  }
  async function redraw(element) {
    const turn = element.turn = (element.turn || 0) + 1;
    element.stale = false;
    element.fetched = Date.now();
    let answer, chart;
    try {
      answer = await fetch(element.dataset.chart, { headers: { Accept: "application/json" } });
      chart = await answer.json();
    } catch (error) {
      if (!element.chart) say(element, "The server did not answer; reload the page to try again.");
      return;
    }
    await plotly();
    if (turn !== element.turn) return; // another answer is under way
    if (!answer.ok) {
      element.chart = null;
      say(element, chart.detail || "This chart cannot be drawn.");
      return;
    }
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", chart.summary);
    const told = element.id && document.querySelector('[data-summary="' + element.id + '"]');
    if (told) told.textContent = plain(chart.summary);
    element.chart = chart;
    draw(element);
  }
  function plain(text) { // the charts' texts are escaped for Plotly
    return text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  }
  function draw(element) {
    const chart = element.chart;
    if (!chart) return;
    if (!chart.data.length) { say(element, plain(chart.summary)); return; }
    if (chart.data.some(function (trace) { return trace.type === "scatter3d"; })) {
      if (element.classList.contains("js-plotly-plot")) Plotly.purge(element);
      element.classList.remove("js-plotly-plot");
      solid.draw(element, chart.data.concat(element.extra || []), chart.layout, css);
      element.dispatchEvent(new Event("drawn"));
      return;
    }
    if (!element.classList.contains("js-plotly-plot")) { element.replaceChildren(); element.clicks = false; }
    const layout = themed(chart.layout);
    layout.uirevision = element.dataset.chart; // what a visitor zoomed to stays while the study grows
    const options = { responsive: true, displaylogo: false, displayModeBar: narrow.matches || element.clientHeight < 120 ? false : "hover",
      modeBarButtons: [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]] }; // none that sends a chart elsewhere
    Plotly.react(element, chart.data.concat(element.extra || []), layout, options);
    if (element.dataset.candidates && !element.clicks) {
      element.clicks = true;
      element.on("plotly_click", function (event) { open(element, event.points[0].customdata); });
    }
    element.dispatchEvent(new Event("drawn"));
  }
  function open(element, number) {
    if (element.dataset.candidates && number !== undefined && number !== null) location.href = element.dataset.candidates + number;
  }
  function set(element, url) {
    element.dataset.chart = url;
    return redraw(element);
  }
  function inView(element) {
    const box = element.getBoundingClientRect();
    return box.bottom > -200 && box.top < innerHeight + 200;
  }
  function stale(elements) {
    elements.forEach(function (element) {
      if (element.waiting) return;
      const left = Math.max(0, (element.fetched || 0) + PAUSE - Date.now());
      element.waiting = setTimeout(function () {
        element.waiting = null;
        if (inView(element) && !document.hidden) redraw(element);
        else element.stale = true;
      }, left);
    });
  }
  const seen = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      const element = entry.target;
      if (entry.isIntersecting && (!element.fetched || element.stale)) redraw(element);
    });
  }, { rootMargin: "200px" });
  document.addEventListener("themechange", function () {
    document.querySelectorAll(".chart").forEach(draw);
  });
  document.addEventListener("visibilitychange", function () {
    document.querySelectorAll(".chart").forEach(function (e) { if (!document.hidden && e.stale && inView(e)) redraw(e); });
  });
  function watch(root) {
    root.querySelectorAll(".chart[data-chart]").forEach(function (element) { seen.observe(element); });
  }
  document.addEventListener("DOMContentLoaded", function () { watch(document); });
  return { redraw: redraw, draw: draw, set: set, stale: stale, open: open, watch: watch };
})();
