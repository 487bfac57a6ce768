// Has the server read a large study, then shows its page.
"use strict";
document.addEventListener("DOMContentLoaded", async function () {
  const name = document.getElementById("reading").dataset.study;
  try {
    const answer = await fetch("/api/v1/studies/" + encodeURIComponent(name));
    if (!answer.ok) throw new Error((await answer.json()).detail);
    location.reload();
  } catch (error) {
    document.getElementById("trouble").textContent = error.message + " Reload the page to try again.";
  }
});
