"use strict";
// The life of one message: a slider over the steps of all servers at once. Without this script the
// lists are whole.
(() => {
  const player = document.querySelector(".player");
  const lives = document.querySelector(".lives");
  if (!player || !lives) return;
  const slider = player.querySelector("input");
  const output = player.querySelector("output");
  const buttons = [...player.querySelectorAll("button")];
  let phase = "message";

  const lists = () => [...lives.querySelectorAll(`ol[data-phase="${phase}"]`)];

  function show() {
    const step = Number(slider.value);
    for (const item of lives.querySelectorAll("li")) item.classList.remove("now", "done");
    for (const list of lists()) {
      [...list.children].forEach((item, at) => {
        item.classList.toggle("now", at === step - 1);
        item.classList.toggle("done", at < step - 1);
      });
    }
    output.textContent = player.dataset.of
      .replace("{a}", step).replace("{b}", slider.max);
  }

  function choose(name) {
    phase = name;
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.phase === name));
    }
    for (const list of lives.querySelectorAll("ol")) {
      const shown = list.dataset.phase === name;
      list.hidden = !shown;
      list.previousElementSibling.hidden = !shown;
    }
    slider.max = Math.max(1, ...lists().map((list) => list.children.length));
    slider.value = 1;
    show();
  }

  slider.addEventListener("input", show);
  for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.phase));
  lives.classList.add("playing");
  player.hidden = false;
  choose("message");
})();
