// The page of a job: asks every second how it stands, shows its log, and goes on to the study once that is there.
"use strict";
document.addEventListener("DOMContentLoaded", function () {
  const log = document.getElementById("log");
  const state = document.getElementById("state");
  const hint = document.getElementById("hint");
  const data = log.dataset;
  const follow = new URLSearchParams(location.search).has("follow");

  function words(job) {
    if (job.state === "running") {
      return follow ? "The process starts; the study's page opens as soon as there is something to see." :
        "The process is running; it goes on when you close this page.";
    }
    if (job.state === "done") return "The process has ended well.";
    if (job.state === "stopped") return "Somebody ended the process; what it had evaluated is kept.";
    if (job.state === "lost") return "The process is gone and left no exit code; a study can be resumed where its log ends.";
    return "The process has failed; the last lines below say why.";
  }
  function show(job) {
    state.textContent = job.state;
    state.className = "status " + job.state;
    hint.textContent = words(job);
    hint.className = "notice" + ({ done: " good", failed: " bad", lost: " unsure", stopped: " unsure" }[job.state] || "");
    document.getElementById("code").textContent = job.code === null ? "–" : job.code;
    document.getElementById("stop").hidden = job.state !== "running";
    if (job.log !== undefined && job.log !== log.textContent) {
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      log.textContent = job.log;
      if (atEnd) log.scrollTop = log.scrollHeight;
    }
  }
  async function look() {
    let again = 3000;
    try {
      const answer = await fetch("/api/v1/jobs/" + encodeURIComponent(data.job), { credentials: "same-origin" });
      if (answer.status === 401) return posting.signIn();
      const job = await answer.json();
      show(job);
      document.getElementById("study").hidden = !job.there;
      if (job.there && follow && job.state !== "failed") return location.replace("/studies/" + encodeURIComponent(data.study));
      if (job.state !== "running") return undefined;
      again = 1000;
    } catch (error) {
      hint.textContent = "The server does not answer; the process goes on without it.";
    }
    setTimeout(look, again);
    return undefined;
  }
  show({ state: data.state, code: document.getElementById("code").textContent });
  log.scrollTop = log.scrollHeight;
  look();
});
