// Heat maps: on canvases, and as tables of which an entry can be chosen.

const SIDE = 28; // of a picture, in pixels
const DENSE = 10; // more columns than that have colours only, and no numbers
const INDEX = { N: "n", D: "d", H: "j", C: "c" };
const colours = {};

const isPicture = (name) => shapeOf(name).length === 2 && shapeOf(name)[1] === SIDE * SIDE;
const isWithModifier = (event) => event.ctrlKey || event.altKey || event.metaKey;

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["pos", "neg", "dark"])
    colours[name] = style.getPropertyValue(`--${name}`).trim().split(" ").map(Number);
}

/** How strong a value's colour is, 0 to 1: by the root of its size, to tell small ones from 0. */
function strength(name, value) {
  if (name === "x") return (value - LOWEST) / (HIGHEST - LOWEST); // ink, however normalized
  return Math.sqrt(Math.abs(value) / (largest(shown(name).data) || 1));
}
const LOWEST = arrays.x.data.reduce((a, b) => Math.min(a, b));
const HIGHEST = arrays.x.data.reduce((a, b) => Math.max(a, b));

/** Paint some values of an array onto a canvas. */
function paint(canvas, name, from, rows, columns) {
  [canvas.width, canvas.height] = [columns, rows];
  const { data } = shown(name);
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    const value = data[from + i];
    const colour = colours[name === "x" ? "dark" : value < 0 ? "neg" : "pos"];
    for (let k = 0; k < 3; k++) image.data[4 * i + k] = colour[k];
    image.data[4 * i + 3] = 255 * strength(name, value);
  }
  context.putImageData(image, 0, 0);
}

/** A table of values, one cell each, in which one is chosen by click or by the arrow keys. */
class Grid {
  constructor(name, onChoose) {
    this.name = name;
    this.onChoose = onChoose;
    this.from = 0; // where its values start in the array: a picture is a row of it
    const [rows, columns] = [1, 1, ...shapeOf(name)].slice(-2);
    [this.rows, this.columns] = isPicture(name) ? [SIDE, SIDE] : [rows, columns];
    this.hasNumbers = columns <= DENSE;
    const kind = isPicture(name) ? "picture" : this.hasNumbers ? "numbers" : "dense";
    const label = `${name}, ${this.rows} rows of ${this.columns}`;
    const attributes = { class: `grid ${kind} of-${name}`, role: "grid", "aria-label": label };
    this.table = make("table", attributes);
    if (!isPicture(name)) this.table.append(this.head());
    this.cells = [];
    for (const r of range(this.rows)) this.table.append(this.row(r));
    this.element = make("div", { class: "scroll" }, this.table);
    this.table.addEventListener("click", (event) => this.choose(this.cells.indexOf(event.target)));
    this.table.addEventListener("keydown", (event) => this.onKey(event));
  }

  head() {
    const letter = INDEX[facts.axes[this.name].slice(-1)] ?? "";
    const heads = range(this.columns).map((k) =>
      make("th", {}, this.hasNumbers || k % 5 === 0 ? k : ""),
    );
    return make(
      "thead",
      { "aria-hidden": "true" },
      make("tr", {}, make("th", {}, letter), ...heads),
    );
  }

  row(r) {
    const axis = this.rows > 1 && facts.axes[this.name][0];
    const words = { N: `sample ${r}: ${facts.labels[r]}`, C: `class ${r}` }[axis] ?? "";
    const cells = range(this.columns).map(() => td("", { role: "gridcell", tabindex: -1 }));
    this.cells.push(...cells);
    return make(
      "tr",
      {},
      ...(isPicture(this.name) ? [] : [make("th", { scope: "row" }, words)]),
      ...cells,
    );
  }

  draw() {
    const { data } = shown(this.name);
    const most = largest(data);
    this.exponent = this.hasNumbers && most > 0 && most < 0.1 ? Math.floor(Math.log10(most)) : 0;
    const scale = 10 ** -this.exponent;
    const decimals = most * scale < 10 ? 3 : 2;
    this.cells.forEach((cell, k) => {
      const value = data[this.from + k];
      cell.style.setProperty("--a", strength(this.name, value).toFixed(3));
      cell.classList.toggle("neg", value < 0);
      cell.classList.toggle("wrong", isWrong(this.name, this.from + k));
      if (this.hasNumbers) cell.textContent = withSign((value * scale).toFixed(decimals));
    });
    this.mark();
  }

  /** Show which entry is chosen; it alone is in the order of the Tab key. */
  mark() {
    this.marked?.removeAttribute("aria-selected");
    this.marked?.setAttribute("tabindex", -1);
    this.marked = this.cells[flat(this.name, chosen[this.name]) - this.from];
    this.marked.setAttribute("aria-selected", "true");
    this.marked.tabIndex = 0;
  }

  choose(k) {
    if (k < 0) return;
    this.onChoose(indexOf(this.name, this.from + k));
    this.cells[k].focus({ preventScroll: true });
    this.cells[k].scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  onKey(event) {
    const k = this.cells.indexOf(event.target);
    const column = k % this.columns;
    const last = this.columns - 1;
    const moves = { ArrowUp: -this.columns, ArrowDown: this.columns, Enter: 0, " ": 0 };
    Object.assign(moves, { Home: -column, End: last - column });
    if (column > 0) moves.ArrowLeft = -1;
    if (column < last) moves.ArrowRight = 1;
    const isOurs = event.key in moves || event.key.startsWith("Arrow");
    if (k < 0 || !isOurs || isWithModifier(event)) return;
    event.preventDefault();
    const next = k + (moves[event.key] ?? 0);
    if (next in this.cells) this.choose(next);
  }
}

/** An array of pictures: small ones to choose from, and the chosen one as a grid. */
class Pictures {
  exponent = 0;

  constructor(name, onChoose) {
    this.name = name;
    this.grid = new Grid(name, onChoose);
    this.areSamples = name === "x";
    this.buttons = range(shapeOf(name)[0]).map((k) => this.button(k));
    const [kind, label] = this.areSamples ? ["picker few", "sample"] : ["picker", "unit"];
    const attributes = { class: kind, role: "radiogroup", "aria-label": label };
    const picker = make("div", attributes, ...this.buttons);
    this.element = make("div", { class: "picked" }, picker, this.grid.element);
    this.choose = (k) => onChoose([k, chosen[name][1]]);
    picker.addEventListener("click", (event) => {
      const k = this.buttons.indexOf(event.target.closest("button"));
      if (k >= 0) this.choose(k);
    });
    picker.addEventListener("keydown", (event) => this.onKey(event));
  }

  button(k) {
    const [label, guess] = [facts.labels[k], facts.predicted[k]];
    const words = this.areSamples ? `sample ${k}, a ${label}, taken for a ${guess}` : `unit ${k}`;
    const attributes = { type: "button", role: "radio", "aria-label": words, title: words };
    const button = make("button", attributes, make("canvas"));
    if (this.areSamples)
      button.append(make("span", {}, `${k}: ${label}`, guess === label ? "" : ` → ${guess}`));
    return button;
  }

  onKey(event) {
    const down = this.areSamples ? 4 : 10; // as many as page.css puts into a row
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: down, ArrowUp: -down }[event.key];
    if (!step || isWithModifier(event)) return;
    event.preventDefault();
    const next = this.buttons.indexOf(event.target) + step;
    if (!(next in this.buttons)) return;
    this.choose(next);
    this.buttons[next].focus();
  }

  draw() {
    const wrong = (k) => range(D).some((d) => isWrong(this.name, k * D + d));
    this.buttons.forEach((button, k) => {
      paint(button.firstChild, this.name, k * D, SIDE, SIDE);
      button.classList.toggle("wrong", wrong(k));
    });
    this.grid.from = -1; // so that it is drawn anew
    this.mark();
  }

  mark() {
    const [k] = chosen[this.name];
    this.buttons.forEach((button, i) => {
      button.setAttribute("aria-checked", String(i === k));
      button.tabIndex = i === k ? 0 : -1;
    });
    if (this.grid.from === k * D) return this.grid.mark();
    this.grid.from = k * D;
    this.grid.draw();
  }
}
