// What an entry is the sum of. A term is a product of parts, [array, index], or has a value of its
// own. `sample` is where it comes from. `off` says why it adds nothing; its parts are then what ReLU
// has kept out: z1 instead of h, and dh instead of dz1.

const part = (name, ...index) => [name, index];
const times = (...parts) => ({ parts });
const isOpen = (n, j) => at("z1", [n, j]) > 0;
const hOf = (n, j) => part(isOpen(n, j) ? "h" : "z1", n, j);
const dz1Of = (n, j) => part(isOpen(n, j) ? "dz1" : "dh", n, j);
const throughUnit = (n, j, term) => {
  const closed = `ReLU is closed: z1[${n}, ${j}] = ${format(at("z1", [n, j]), 3)}`;
  return { ...term, off: isOpen(n, j) ? "" : closed };
};
const overSamples = (term) => range(N).map((n) => ({ sample: n, ...term(n) }));

const TERMS = {
  z1: ([n, j]) => [
    ...range(D).map((d) => times(part("x", n, d), part("W1", j, d))),
    times(part("b1", j)),
  ],
  h: ([n, j]) => [throughUnit(n, j, times(part("z1", n, j)))],
  z2: ([n, c]) => [
    ...range(H).map((j) => throughUnit(n, j, times(hOf(n, j), part("W2", c, j)))),
    times(part("b2", c)),
  ],
  p: ([n, c]) => [
    { name: `exp(z2[${n}, ${c}] − m) / Σ exp(z2[${n}, k] − m)`, value: softmax(n, c) },
  ],
  loss: () => overSamples(costOf),
  dz2: ([n, c]) => [
    { name: `p[${n}, ${c}] / N`, value: at("p", [n, c]) / N },
    {
      name: `−(${c} = y[${n}]) / N`,
      value: -1 / N,
      off: c === facts.labels[n] ? "" : `the label is ${facts.labels[n]}`,
    },
  ],
  dW2: ([c, j]) => overSamples((n) => throughUnit(n, j, times(part("dz2", n, c), hOf(n, j)))),
  db2: ([c]) => overSamples((n) => times(part("dz2", n, c))),
  dh: ([n, j]) => range(C).map((c) => times(part("dz2", n, c), part("W2", c, j))),
  dz1: ([n, j]) => [throughUnit(n, j, times(part("dh", n, j)))],
  dW1: ([j, d]) => overSamples((n) => throughUnit(n, j, times(dz1Of(n, j), part("x", n, d)))),
  db1: ([j]) => overSamples((n) => throughUnit(n, j, times(dz1Of(n, j)))),
};

function costOf(n) {
  const y = facts.labels[n];
  return { name: `−log p[${n}, ${y}] / N`, value: -Math.log(at("p", [n, y])) / N };
}

function softmax(n, c) {
  const logits = range(C).map((k) => at("z2", [n, k]));
  const m = Math.max(...logits);
  return Math.exp(logits[c] - m) / logits.reduce((sum, z) => sum + Math.exp(z - m), 0);
}

/** The terms of an entry, each with its name, its product, and what it adds: nothing if it is off. */
function termsOf(name, index) {
  return (TERMS[name]?.(index) ?? []).map((term) => {
    if (!term.parts) return { ...term, product: term.value, value: term.off ? 0 : term.value };
    const factors = term.parts.map(([array, i]) => at(array, i));
    const product = factors.reduce((a, b) => a * b);
    return {
      ...term,
      name: term.parts.map(([array, i]) => entry(array, i)).join(" · "),
      numbers: factors.length > 1 ? factors.map((factor) => format(factor, 4)).join(" · ") : "",
      product,
      value: term.off ? 0 : product,
    };
  });
}

const countOff = (terms) => terms.filter((term) => term.off).length;
