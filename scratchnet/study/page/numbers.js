// The page's numbers come from Python: `facts` in words, `numbers` as arrays. What is computed here
// is shown to be so: the terms of a sum, and the loss of the network with a weight nudged.

const $ = (selector) => document.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const range = (n) => [...Array(n).keys()];

const facts = JSON.parse($("#facts").textContent);
const { N, D, H, C } = facts.sizes;
const STAGES = facts.stages;
const GRADIENTS = STAGES.slice(STAGES.indexOf("loss") + 1);
const PARAMETERS = ["W1", "b1", "W2", "b2"];

const arrays = await unpack().catch((error) => {
  $("#problem").hidden = false;
  throw error;
});

/** The arrays by name, as Python has packed them: one behind the other, deflated, in base64. */
async function unpack() {
  const text = atob($("#numbers").textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const kinds = { float64: Float64Array, float32: Float32Array, uint8: Uint8Array };
  const found = {};
  for (const [name, kind, shape, start] of facts.arrays) {
    const size = shape.reduce((a, b) => a * b, 1);
    found[name] = { shape, data: Float64Array.from(new kinds[kind](buffer, start, size)) };
  }
  return found;
}

// What is shown: a stage, whose gradients ("" for the true ones), an entry of each array, and the
// parameter that the nudge is for.
let stage = STAGES[0];
let variant = "";
const chosen = {};
let nudged;

const shapeOf = (name) => arrays[name].shape;
const flat = (name, index) => index.reduce((sum, i, axis) => sum * shapeOf(name)[axis] + i, 0);
const at = (name, index) => arrays[name].data[flat(name, index)];
const entry = (name, index) => (index.length ? `${name}[${index.join(", ")}]` : name);
const ofParameter = (name) => (PARAMETERS.includes(name) ? name : name.slice(1));
const isOfParameter = (name) => PARAMETERS.includes(ofParameter(name));

/** The index of an entry from its place in the flat array. */
function indexOf(name, i) {
  const shape = shapeOf(name);
  if (shape.length < 2) return shape.length ? [i] : [];
  return [Math.floor(i / shape[1]), i % shape[1]];
}

/** An array as the variant that is chosen has it. */
const shown = (name) => arrays[`${variant}.${name}`] ?? arrays[name];
const isWrong = (name, i) => arrays[`${variant}.${name}.wrong`]?.data[i] === 1;
const isAnyWrong = (name) => arrays[`${variant}.${name}.wrong`]?.data.includes(1) ?? false;

/** The largest size of a number in an array. */
function largest(data) {
  if (!known.has(data)) {
    const sizes = data.map((value) => (Number.isFinite(value) ? Math.abs(value) : 0));
    known.set(
      data,
      sizes.reduce((a, b) => (b > a ? b : a), 0),
    );
  }
  return known.get(data);
}
const known = new WeakMap();

/** Six digits by default: enough to be compared with Python's to 1e-5. */
function format(value, digits = 6) {
  if (value === 0 || !Number.isFinite(value)) return withSign(String(value));
  const size = Math.abs(value);
  const text =
    size < 1e-4 || size >= 1e6 ? value.toExponential(digits - 1) : value.toPrecision(digits);
  return withSign(text);
}

/** With minus signs for hyphens, and none before a zero. */
const withSign = (text) => text.replaceAll("-", "−").replace(/^−(?=[0.]+$)/, "");

const superscript = (n) =>
  [...String(n)].map((digit) => (digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit])).join("");

/** An element with attributes, but for those that are undefined, false or empty, and children. */
function make(tag, attributes = {}, ...children) {
  const space = SVG.includes(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const element = document.createElementNS(space, tag);
  for (const [name, value] of Object.entries(attributes))
    if (value || value === 0) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
const SVG = ["line", "path", "circle", "text"];
