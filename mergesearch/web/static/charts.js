// Draws every element <div class="chart" data-chart="URL"> from the JSON {data, layout, summary} that its URL gives.
// Colours of text and grid come from the page's CSS variables, so charts follow light and dark. `redraw(element)`
// fetches again; pages call it when a study has changed. A click on a point whose customdata is a candidate's number
// opens that candidate's page, if the element has data-candidates="/studies/NAME/candidates/".
"use strict";
const charts = (function () {
  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }
  function themed(layout) {
    const axis = { gridcolor: css("--grid"), zerolinecolor: css("--grid"), linecolor: css("--faint"), automargin: true };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css("--ink"), size: 13 },
      margin: { l: 56, r: 16, t: 28, b: 48 }, hovermode: "closest",
      legend: { orientation: "h", y: -0.2 }, autosize: true,
    };
    const made = Object.assign(base, layout);
    for (const key of Object.keys(made)) {
      if (/^[xy]axis\d*$/.test(key)) made[key] = Object.assign({}, axis, made[key]);
    }
    return made;
  }
  async function redraw(element) {
    const answer = await fetch(element.dataset.chart, { headers: { Accept: "application/json" } });
    const chart = await answer.json();
    if (!answer.ok) {
      element.textContent = chart.detail;
      return;
    }
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", chart.summary);
    element.chart = chart;
    draw(element);
  }
  function draw(element) {
    const options = { responsive: true, displaylogo: false, displayModeBar: "hover" };
    Plotly.react(element, element.chart.data, themed(element.chart.layout), options);
    if (element.dataset.candidates && !element.clicks) {
      element.clicks = true;
      element.on("plotly_click", function (event) {
        const number = event.points[0].customdata;
        if (number !== undefined && number !== null) location.href = element.dataset.candidates + number;
      });
    }
  }
  document.addEventListener("themechange", function () {
    document.querySelectorAll(".chart").forEach(function (element) { if (element.chart) draw(element); });
  });
  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll(".chart[data-chart]").forEach(redraw);
  });
  return { redraw: redraw };
})();
