// The stages, and going from one to another, by hand or along the picture of the pipeline.

const WITH = { z1: ["W1", "b1"], z2: ["W2", "b2"] }; // the parameters that a stage shows too
const views = {}; // of each array its Grid or Pictures, and where its legend is
const stale = new Set(); // stages that have to be drawn anew

const isIn = (name, shownIn) => name === shownIn || (WITH[shownIn] ?? []).includes(name);
const stageOf = (name) => STAGES.find((each) => isIn(name, each));
const section = (name) => $(`.stage[data-stage="${name}"]`);

function buildStage(name) {
  const where = section(name);
  where.querySelector("h2").after(make("p", { class: "shape" }, describeShape(name)));
  for (const array of [name, ...(WITH[name] ?? [])]) {
    const view = new (isPicture(array) ? Pictures : Grid)(array, (index) => choose(array, index));
    const legend = make("p", { class: "legend" });
    const values = make("div", { class: "values" }, view.element, legend);
    if (array !== name)
      values.prepend(make("h3", {}, array, " ", make("span", {}, describeShape(array))));
    where.append(values);
    views[array] = { view, legend };
  }
  where.append(make("div", { class: "entry" }));
}

function describeShape(name) {
  const letters = facts.axes[name];
  if (!letters) return "one number";
  const comma = letters.length === 1 ? "," : "";
  return `(${[...letters].join(", ")}${comma}) = (${shapeOf(name).join(", ")}${comma})`;
}

function drawStage(name) {
  stale.delete(name);
  for (const array of [name, ...(WITH[name] ?? [])]) {
    const { view, legend } = views[array];
    view.draw();
    const most = format(largest(shown(array).data), 3);
    legend.replaceChildren();
    if (array === "x") continue;
    legend.append(`−${most}`, make("i", { class: "signed", "aria-hidden": "true" }), most);
    if (view.exponent) legend.append(`numbers × 10${superscript(view.exponent)}`);
  }
  drawEntry(name);
}

function choose(name, index) {
  chosen[name] = index;
  const inStage = stageOf(name);
  lastIn[inStage] = name;
  views[name].view.mark();
  drawEntry(inStage);
  if (isOfParameter(name)) {
    nudged = { name: ofParameter(name), index };
    for (const twin of [nudged.name, `d${nudged.name}`]) {
      chosen[twin] = index;
      if (twin !== name) stale.add(stageOf(twin));
    }
    setTimeout(drawInAdvance, 50);
    resetNudge();
  }
  const terms = termsOf(name, index);
  const sum = terms.length > 1 ? ` ${inWords(name, terms).replace(":", "")}.` : "";
  say(`${entry(name, index)} is ${format(at(name, index))}.${sum}`);
}

const say = (text) => ($("#said").textContent = text);

function go(name) {
  stage = name;
  const k = STAGES.indexOf(name);
  for (const each of STAGES) section(each).hidden = each !== name;
  if (stale.has(name)) drawStage(name);
  for (const node of all(".node[data-stage]")) {
    if (node.dataset.stage === name) node.setAttribute("aria-current", "step");
    else node.removeAttribute("aria-current");
  }
  $("#stage").value = k;
  const direction = k > STAGES.indexOf("loss") ? "backward" : "forward";
  $("#stage").setAttribute("aria-valuetext", `${name}, ${direction}`);
  $("#where").replaceChildren(make("b", {}, name), `, ${direction}, ${k + 1} of ${STAGES.length}`);
  $("#back").disabled = k === 0;
  $("#on").disabled = k === STAGES.length - 1;
}

const move = (step) =>
  go(STAGES[Math.min(Math.max(STAGES.indexOf(stage) + step, 0), STAGES.length - 1)]);

/** Show the true gradients (""), the reader's own ("mine"), or those of a bug. */
function showVariant(name) {
  variant = name;
  for (const input of all(".bug input")) input.checked = input.value === name;
  $("#spoilt").hidden = !name;
  const what = name === "mine" ? "your own gradients" : "gradients with a planted bug";
  $("#spoilt span").textContent = `Shown are ${what}: a corner marks what is wrong.`;
  GRADIENTS.forEach((each) => stale.add(each));
  const before = nudged;
  GRADIENTS.filter(isAnyWrong).forEach(chooseWrong);
  if (nudged !== before) resetNudge();
  if (stale.has(stage)) drawStage(stage);
  drawPipeline();
  drawNudge();
  setTimeout(drawInAdvance, 50);
  say(name ? `${what} are shown` : "the true gradients are shown");
}

/** If the chosen entry is right, choose the one that is farthest off instead. */
function chooseWrong(name) {
  if (isWrong(name, flat(name, chosen[name]))) return;
  const { data } = shown(name);
  const off = arrays[name].data.map((value, i) =>
    isWrong(name, i) ? Math.abs(data[i] - value) || Number.MAX_VALUE : 0,
  );
  chosen[name] = indexOf(name, off.indexOf(largest(off)));
  if (!isOfParameter(name)) return;
  chosen[ofParameter(name)] = chosen[name];
  stale.add(stageOf(ofParameter(name)));
  if (nudged.name === ofParameter(name)) nudged = { name: nudged.name, index: chosen[name] };
}

function buildPipeline() {
  const node = (name) => {
    const preview = make("canvas", { "aria-hidden": "true", class: isPicture(name) && "square" });
    const shape = make("small", {}, describeShape(name).split(" = ").at(-1));
    const words = make("span", {}, make("b", {}, name), shape);
    const isStage = STAGES.includes(name);
    const attributes = { type: "button", class: "node", "data-array": name };
    if (isStage) attributes["data-stage"] = name;
    const button = make("button", attributes, preview, words);
    button.addEventListener("click", () => go(isStage ? name : stageOf(name)));
    return button;
  };
  const place = (kind, ...names) => make("div", { class: `place ${kind}` }, ...names.map(node));
  const note = (kind, text) => make("div", { class: `place note ${kind}` }, make("span", {}, text));
  $("#pipeline").append(
    place("to", "x"),
    place("to", "W1", "b1"),
    place("to", "z1"),
    place("to", "h"),
    place("to", "W2", "b2"),
    place("to", "z2"),
    place("to", "p"),
    place("", "loss"),
    note("", "x needs no gradient"),
    place("from", "dW1", "db1"),
    place("from", "dz1"),
    place("from", "dh"),
    place("from", "dW2", "db2"),
    place("from", "dz2"),
    note("from", "p and log in one step"),
    note("", "∂loss/∂loss = 1"),
  );
}

function drawPipeline() {
  for (const node of all(".node[data-array]")) {
    const name = node.dataset.array;
    const shape = shapeOf(name);
    const index = chosen[name] ?? [];
    if (isPicture(name)) paint(node.firstChild, name, index[0] * D, 28, 28);
    else paint(node.firstChild, name, 0, shape.length === 2 ? shape[0] : 1, shape.at(-1) ?? 1);
    const wrong = isAnyWrong(name);
    node.classList.toggle("wrong", wrong);
    if (wrong) node.setAttribute("aria-label", `${name}, wrong`);
    else node.removeAttribute("aria-label");
  }
}
