// A weight nudged: the loss as it then is, and as the gradient has promised.

const WIDEST = 64;
let reach = 1; // δ goes from −reach to reach
let curve = []; // [δ, loss] over all of it

/** The loss with a parameter nudged: forward again, but for the units that it does not reach. */
function lossWith(name, index, delta) {
  const { data } = arrays[name];
  const place = flat(name, index);
  const before = data[place];
  data[place] += delta;
  const unit = name.endsWith("1") ? index[0] : undefined;
  const found = { loss: 0, switched: 0 };
  for (const n of range(N)) {
    const z1 = arrays.z1.data.slice(n * H, (n + 1) * H);
    if (unit !== undefined) z1[unit] = preactivation(n, unit);
    found.switched += z1.findIndex((z, j) => z > 0 !== isOpen(n, j)) >= 0;
    found.loss += cost(logits(z1), facts.labels[n]) / N;
  }
  data[place] = before;
  return found;
}

function preactivation(n, j) {
  let z = at("b1", [j]);
  for (let d = 0; d < D; d++) z += arrays.x.data[n * D + d] * arrays.W1.data[j * D + d];
  return z;
}

function logits(z1) {
  const z2 = arrays.b2.data.slice();
  for (let c = 0; c < C; c++)
    for (let j = 0; j < H; j++) z2[c] += Math.max(z1[j], 0) * arrays.W2.data[c * H + j];
  return z2;
}

function cost(z2, label) {
  const m = Math.max(...z2);
  return m + Math.log(z2.reduce((sum, z) => sum + Math.exp(z - m), 0)) - z2[label];
}

/** Take another parameter; widen the reach until its loss has clearly left the tangent. */
function resetNudge() {
  const { name, index } = nudged;
  const slope = at(`d${name}`, index);
  const start = at("loss", []);
  const gap = (delta) => Math.abs(lossWith(name, index, delta).loss - start - slope * delta);
  for (reach = 0.25; reach < WIDEST; reach *= 2)
    if (Math.max(gap(reach), gap(-reach)) > 0.2 * Math.max(start, Math.abs(slope) * reach)) break;
  const deltas = range(61).map((k) => reach * (k / 30 - 1));
  curve = deltas.map((delta) => [delta, lossWith(name, index, delta).loss]);
  $("#delta").value = 0;
  $("#weight").textContent = entry(name, index);
  drawNudge();
}

/** The loss as it is at δ, and as the gradient that is shown has promised. */
function drawNudge() {
  const { name, index } = nudged;
  const place = flat(name, index);
  const delta = (reach * $("#delta").value) / 100;
  const slope = shown(`d${name}`).data[place];
  const { loss, switched } = lossWith(name, index, delta);
  const promise = at("loss", []) + slope * delta;
  const rows = [
    ["δ", delta],
    [`${entry(name, index)} + δ`, at(name, index) + delta],
    [entry(`d${name}`, index), slope],
    ["loss", loss, "main"],
    ["promised", promise, "main"],
    ["apart by", loss - promise],
    ["samples with a ReLU that has switched", switched],
  ];
  const cells = ([label, value, kind]) => [
    make("dt", { class: kind }, label),
    make("dd", { class: kind }, format(value)),
  ];
  $("#nudged").replaceChildren(...rows.flatMap(cells));
  const spoken = `δ = ${format(delta, 3)}, loss ${format(loss)}, promised ${format(promise)}`;
  $("#delta").setAttribute("aria-valuetext", spoken);
  const touches = isWrong(`d${name}`, place) ? "is no tangent" : "is the tangent at δ = 0";
  $("#plotted").textContent = `The loss over δ; the dashed line that is promised ${touches}.`;
  plot(delta, loss, promise, slope);
}

function plot(delta, loss, promise, slope) {
  const [left, right, top, bottom] = [56, 545, 14, 262];
  const losses = curve.map(([, value]) => value);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const margin = 0.35 * (high - low) || 0.1;
  const [from, to] = [Math.max(low - margin, 0), high + margin];
  const x = (value) => left + ((value + reach) / (2 * reach)) * (right - left);
  const y = (value) => bottom - ((value - from) / (to - from)) * (bottom - top);
  const within = (value) => Math.min(Math.max(y(value), top - 12), bottom + 12);
  const line = (kind, a, b, c, d) => make("line", { class: kind, x1: a, y1: b, x2: c, y2: d });
  const text = (content, a, b, anchor) =>
    make("text", { x: a, y: b, "text-anchor": anchor }, withSign(String(content)));
  const circle = (kind, value) =>
    make("circle", { class: kind, cx: x(delta), cy: within(value), r: 4.5 });
  const points = curve.map(([d, value]) => `${x(d).toFixed(1)},${y(value).toFixed(1)}`);
  const [a, b] = ends(slope, from, to);
  const promised = (d) => y(at("loss", []) + slope * d);
  $("#plot").replaceChildren(
    ...roundNumbers(from, to).flatMap((value) => [
      line("axis", left, y(value), right, y(value)),
      text(value, left - 8, y(value) + 4, "end"),
    ]),
    ...[-1, -0.5, 0, 0.5, 1].map((k) => text(k * reach, x(k * reach), bottom + 20, "middle")),
    text("δ", right, bottom + 36, "end"),
    text("loss", left, top - 4),
    line("tangent", x(a), promised(a), x(b), promised(b)),
    make("path", { class: "curve", d: `M${points.join("L")}` }),
    line("gap", x(delta), within(loss), x(delta), within(promise)),
    circle("ring", promise),
    circle("dot", loss),
  );
}

/** Some round numbers between two. */
function roundNumbers(from, to) {
  const rough = (to - from) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((k) => k * power >= rough);
  const first = Math.ceil(from / step);
  const count = Math.floor(to / step) - first + 1;
  return range(count).map((k) => Number(((first + k) * step).toPrecision(6)));
}

/** From which δ to which the promised line stays within the plot. */
function ends(slope, from, to) {
  if (!slope) return [-reach, reach];
  const crossings = [from, to].map((value) => (value - at("loss", [])) / slope);
  return [Math.max(Math.min(...crossings), -reach), Math.min(Math.max(...crossings), reach)];
}
