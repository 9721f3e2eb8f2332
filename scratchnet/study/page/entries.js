// One entry taken apart: its terms, their sum, and the same number from others.

const FEW = 12; // of more terms than that the largest are listed, and the others together
const LISTED = 8;
const lastIn = {}; // the array of which an entry was chosen last, by stage

const td = (content, options) => make("td", options, content);

function drawEntry(inStage) {
  const name = lastIn[inStage] ?? inStage;
  const index = chosen[name];
  const terms = termsOf(name, index);
  const panel = section(inStage).querySelector(".entry");
  panel.replaceChildren(make("h3", {}, `${entry(name, index)} = ${format(at(name, index))}`));
  if (terms.length) panel.append(make("p", {}, inWords(name, terms)), termsTable(terms));
  panel.append(sumsTable(name, index, terms));
  if (PARAMETERS.includes(name)) panel.append(make("p", {}, "A parameter, for the nudge below."));
  const lines = name === inStage ? all(`.stage[data-stage="${name}"] > .line`) : [];
  panel.append(...lines.map((line) => line.cloneNode(true)));
}

function inWords(name, terms) {
  const off = countOff(terms);
  if (terms.length === 1) return off ? "Nothing passes:" : "One term:";
  const each = name === "dh" ? ", one a class" : terms[0].sample === 0 ? ", one a sample" : "";
  const without = off ? `; ${off} ${off > 1 ? "are" : "is"} struck out` : "";
  return `The sum of ${terms.length} terms${each}${without}:`;
}

function termsTable(terms) {
  let listed = terms;
  if (terms.length > FEW) {
    const sorted = terms.toSorted((a, b) => Math.abs(b.value) - Math.abs(a.value));
    const rest = sorted.slice(LISTED).reduce((sum, term) => sum + term.value, 0);
    const others = {
      name: `the other ${terms.length - LISTED} together`,
      product: rest,
      value: rest,
    };
    listed = [...sorted.slice(0, LISTED), others];
  }
  const most = Math.max(...listed.map((term) => Math.abs(term.value)));
  return make("table", { class: "terms" }, ...listed.map((term) => termRow(term, most)));
}

function termRow(term, most) {
  const picture = term.sample === undefined ? "" : make("canvas", { "aria-hidden": "true" });
  if (picture) paint(picture, "x", term.sample * D, 28, 28);
  const what = td(make("span", {}, term.name));
  for (const [text, kind] of [[term.numbers], [term.off, "why"]])
    if (text) what.append(make("small", { class: kind }, text));
  const bar = term.off ? td("off", { class: "bar" }) : barOf(term.value, most);
  return make("tr", { class: term.off && "off" }, td(picture), what, td(format(term.product)), bar);
}

function barOf(value, most) {
  const bar = make("i", { class: value < 0 && "neg" });
  const share = most ? (50 * Math.abs(value)) / most : 0;
  bar.style.width = `${share}%`;
  bar.style.left = value < 0 ? `${50 - share}%` : "50%";
  return td(make("div", {}, bar), { class: "bar", "aria-hidden": "true" });
}

function sumsTable(name, index, terms) {
  const rows = [];
  const add = (kind, label, value, note = "") =>
    rows.push(make("tr", { class: kind }, td(label), td(format(value)), td(note)));
  const [value, place] = [at(name, index), flat(name, index)];
  if (terms.length)
    add(
      "here",
      "computed here",
      terms.reduce((sum, term) => sum + term.value, 0),
    );
  add("", "scratchnet", value, "in float64");
  const difference = arrays[`torch.${name}`]?.data[place];
  if (difference !== undefined) {
    const note = difference
      ? `${difference > 0 ? "+" : ""}${format(difference, 2)}`
      : "exactly the same";
    add("", "PyTorch", value + difference, note);
  }
  const found = arrays[`${variant}.${name}`]?.data[place];
  const whose = variant === "mine" ? "yours" : "with the bug";
  if (found !== undefined) add("found", whose, found, isWrong(name, place) ? "wrong" : "right");
  if (PARAMETERS.includes(name)) add("found", entry(`d${name}`, index), at(`d${name}`, index));
  return make("table", { class: "sums" }, ...rows);
}
