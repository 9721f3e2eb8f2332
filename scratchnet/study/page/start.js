// Building all of it, and listening to what one does.

/** Draw what is not seen yet when there is nothing else to do, a stage at a time. */
function drawInAdvance() {
  const [next] = stale;
  if (next) drawStage(next);
  if (stale.size) setTimeout(drawInAdvance, 50);
}

function setTheme(theme) {
  const prefersDark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark", theme ? theme === "dark" : prefersDark);
  readColours();
  STAGES.forEach((name) => stale.add(name));
  drawStage(stage);
  drawPipeline();
  setTimeout(drawInAdvance, 50);
}

function start() {
  for (const name of [...STAGES, ...PARAMETERS]) {
    const { data } = arrays[name];
    const most = largest(data);
    chosen[name] = indexOf(
      name,
      data.findIndex((value) => Math.abs(value) === most),
    );
  }
  for (const name of PARAMETERS) chosen[name] = chosen[`d${name}`];
  nudged = { name: "W2", index: chosen.W2 };
  buildPipeline();
  STAGES.forEach(buildStage);
  setTheme("");
  $("#stage").max = STAGES.length - 1;
  $("#stage").addEventListener("input", (event) => go(STAGES[event.target.value]));
  $("#back").addEventListener("click", () => move(-1));
  $("#on").addEventListener("click", () => move(1));
  $("#delta").addEventListener("input", drawNudge);
  $("#spoilt button").addEventListener("click", () => showVariant(""));
  for (const input of all(".bug input"))
    input.addEventListener("change", () => showVariant(input.value));
  const theme = () => $(".theme :checked").value;
  for (const input of all(".theme input"))
    input.addEventListener("change", () => setTheme(theme()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(theme()));
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || isWithModifier(event) || event.target.closest("input, .grid, .picker")) return;
    event.preventDefault();
    move(step);
  });
  addEventListener("beforeprint", () => {
    setTheme("light"); // paper is
    [...stale].forEach(drawStage);
  });
  addEventListener("afterprint", () => setTheme(theme()));
  go(stage);
  resetNudge();
  document.documentElement.dataset.ready = String(performance.now());
}

start();
