"""The study page, in a browser: what it shows is what Python computes, and each control works.

Numbers are read off the page as a person would, from its text, and compared to 1e-5 of the value:
six digits are shown, which is to 5e-6.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from scratchnet import checkpoint, functional, mnist
from scratchnet.backend import Array
from scratchnet.cli import main
from scratchnet.errors import InputError
from scratchnet.nn import CrossEntropyLoss, Mnist_NN
from scratchnet.study import autograd, diagnose, mathml, page, page_facts, subjects
from scratchnet.study.page_facts import Facts
from scratchnet.training import Normalization, Options, Run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
in_browser = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser: looked for {', '.join(NAMES)} on the PATH"
)
STAGES = ["x", *page_facts.STEPS]
PARAMETERS = ("W1", "b1", "W2", "b2")
# Other programs may run on the same processors: times get that much longer before a test fails.
# With nothing else at work the page opens within a second and answers a click within 50 ms.
SLACK = 5

WRONG = """
import numpy as np

def network_backward(x, target, W1, b1, W2, b2):
    print("</pre></script><script>document.title = 'taken over'</script>")
    z1 = x @ W1.T + b1
    h = np.maximum(z1, 0)
    z2 = h @ W2.T + b2
    p = np.exp(z2 - z2.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    dz2 = (p - np.eye(len(b2))[target]) / len(x)
    dh = dz2 @ W2
    dz1 = dh * (dh > 0)
    return dict(z1=z1, h=h, z2=z2, dz2=dz2, dW2=dz2.T @ h, db2=dz2.sum(axis=0), dh=dh, dz1=dz1,
                dW1=dz1.T @ x, db1=dz1.sum(axis=0))
"""


@pytest.fixture(scope="session")
def facts() -> Facts:
    return page_facts.gather(None, digit=3, seed=0)


@pytest.fixture(scope="session")
def mine(facts: Facts, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """The same with a learner's file, whose ReLU has the mask of the gradient."""
    file = tmp_path_factory.mktemp("mine") / "09_chain.py"
    file.write_text(WRONG)
    return facts._replace(mine=page_facts.ask(file, facts))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    # Without a sandbox, since in containers there is none to be had; the page is our own.
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        yield browser


class Opened:
    """A page in a browser, on which nothing may go wrong."""

    def __init__(self, browser: Browser, facts: Facts, folder: Path, **context: Any) -> None:
        self.file = folder / "study.html"
        self.file.write_text(page.render(facts, seed=0), encoding="utf-8")
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(5000)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.load()

    def load(self) -> Page:
        self.page.goto(self.file.as_uri())
        self.page.locator("html[data-ready]").wait_for()
        return self.page

    def check(self) -> None:
        assert self.complaints == []
        assert set(self.requests) == {self.file.as_uri()}

    def close(self) -> None:
        self.context.close()
        self.check()


@pytest.fixture(scope="session")
def window(
    browser: Browser, facts: Facts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    opened = Opened(browser, facts, tmp_path_factory.mktemp("page"))
    yield opened
    opened.close()


@pytest.fixture
def opened(window: Opened) -> Iterator[Page]:
    """The page, loaded anew."""
    yield window.load()
    window.check()


# ------------------------------------------------------------------------- reading the page


def number(text: str) -> float:
    """A number as the page writes it, with a minus sign instead of a hyphen."""
    return float(text.strip().replace("−", "-"))


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-5, abs=1e-12)


def go(page: Page, stage: str) -> Locator:
    """Move the scrubber to a stage."""
    page.locator("#stage").fill(str(STAGES.index(stage)))
    return page.locator(f".stage[data-stage={stage}]")


def stage_of(name: str) -> str:
    return {"W1": "z1", "b1": "z1", "W2": "z2", "b2": "z2"}.get(name, name)


def grid_of(page: Page, name: str) -> Locator:
    return page.get_by_role("grid", name=re.compile(f"^{name},"))


def choose(page: Page, name: str, index: tuple[int, ...]) -> Locator:
    """Click an entry of an array; the panel that takes it apart."""
    stage, rows = go(page, stage_of(name)), grid_of(page, name).locator("tr:has(td)")
    if name in ("x", "W1", "dW1"):
        pictures = stage.locator(".picked").filter(has=grid_of(page, name))
        pictures.get_by_role("radio").nth(index[0]).click()
        index = divmod(index[1], 28)
    row, column = (0, 0, *index)[-2:]
    rows.nth(row).locator("td").nth(column).click()
    return stage.locator(".entry")


def entry(name: str, index: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, index))}]" if index else name


def value_in(panel: Locator, row: str) -> float:
    """The number in a row of the panel's sums."""
    return number(panel.locator(".sums tr").filter(has_text=row).locator("td").nth(1).inner_text())


def indices(name: str, array: Array, count: int) -> list[tuple[int, ...]]:
    """Some entries of an array: the largest, and others by chance."""
    rng = np.random.default_rng(len(name) + array.size)
    flat = [int(abs(array).argmax()), *rng.integers(array.size, size=count - 1)]
    return [tuple(int(i) for i in np.unravel_index(k, array.shape)) for k in flat]


# ------------------------------------------------------------------------------- the facts


def test_the_stages_are_those_of_the_layers(facts: Facts) -> None:
    """Beside nn's layers in float64, which round differently: 1e-12 is thousands of roundings of a
    sum of 785 terms, and a part in a million of no array's largest entry is as small."""
    model = Mnist_NN(device="cpu", dtype=np.float64)
    model.load_state_dict({key: facts.inputs[name] for name, key in subjects.PARAMETERS.items()})
    loss_func = CrossEntropyLoss()
    logits = model(facts.inputs["x"])
    found: dict[str, Any] = {"z2": logits, "loss": loss_func(logits, facts.inputs["target"])}
    found["dz2"] = loss_func.backward()
    model.backward(found["dz2"])
    gradients = dict(model.named_parameters())
    for name, key in subjects.PARAMETERS.items():
        found[f"d{name}"] = gradients[key].grad
    for name, array in found.items():
        np.testing.assert_allclose(facts.truths[name].value, array, rtol=1e-12, atol=1e-12)


def test_the_batch_begins_with_the_digit_asked_for(facts: Facts) -> None:
    assert facts.inputs["target"][0] == 3
    assert len(np.unique(facts.inputs["x"], axis=0)) == page_facts.SAMPLES


def test_of_the_last_samples_the_network_is_not_sure(facts: Facts) -> None:
    p = facts.truths["p"].value[np.arange(page_facts.SAMPLES), facts.inputs["target"]]
    assert (abs(p[-page_facts.UNSURE :] - 0.5) < 0.1).all()


def test_pytorch_is_within_the_bound_of_rounding(facts: Facts) -> None:
    theirs = autograd.arrays(facts.inputs)
    assert theirs is not None
    assert facts.torch is not None
    assert facts.torch.keys() == facts.truths.keys()
    for name, comparison in facts.torch.items():
        assert comparison.share <= 1
        np.testing.assert_array_equal(
            comparison.difference, theirs[name] - facts.truths[name].value
        )


@pytest.mark.parametrize("name", page_facts.BUGS)
def test_a_planted_bug_is_recognized_by_what_it_does_to_the_batch(facts: Facts, name: str) -> None:
    bug = next(bug for bug in facts.bugs if bug.mistake.name == name)
    verdict = diagnose.arrays("network_backward", bug.gradients.found, facts.inputs)
    assert verdict.name == name
    assert any(wrong.any() for wrong in bug.gradients.wrong.values())


@pytest.mark.parametrize("name", page_facts.BUGS)
def test_the_lines_shown_of_a_bug_make_the_true_gradients_and_the_wrong_ones(
    facts: Facts, name: str
) -> None:
    found = next(bug for bug in facts.bugs if bug.mistake.name == name).gradients.found
    true = {step: truth.value for step, truth in facts.truths.items()}
    p = functional.softmax_forward(true["z2"])
    known = facts.inputs | {"np": np, "N": len(p), "p": p, "y": np.eye(10)[facts.inputs["target"]]}
    for line, arrays in zip(page_facts.BUGS[name], (true, true | found), strict=True):
        made: dict[str, Any] = known | arrays
        exec(line, made)
        for step, array in arrays.items():
            # Sums of 8 terms, each rounded a few times, by 2^-53 of itself.
            slack = 1e-14 * abs(array).max()
            np.testing.assert_allclose(made[step], array, rtol=0, atol=slack)


@pytest.mark.parametrize("name", [*page_facts.BUGS][:-1])
def test_the_loss_still_falls_with_a_bug(facts: Facts, name: str) -> None:
    losses = next(bug for bug in facts.bugs if bug.mistake.name == name).training.losses
    assert len(losses) == page_facts.BUG_STEPS
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])


def test_but_not_with_the_sign_turned(facts: Facts) -> None:
    losses = facts.bugs[-1].training.losses
    assert np.mean(losses[-20:]) > 10 * np.mean(losses[:20])


def test_without_a_bug_the_run_is_that_of_the_layers_engine(facts: Facts) -> None:
    """Its gradients are computed in float64, and rounded to float32: the losses, of the order of
    1, drift apart by roundings that Adam magnifies; the first has met none."""
    run = Run(Options("adam", seed=0), mnist.load().train, "cpu")
    losses = [run.update(x, y, lr) for x, y, lr in run.batches(0, 20)]
    assert facts.right.losses[0] == pytest.approx(losses[0], rel=1e-6)
    assert facts.right.losses[:20] == pytest.approx(losses, rel=1e-2)


def test_a_checkpoint_is_the_network_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_facts, "BUGS", {})
    monkeypatch.setattr(page_facts, "BUG_STEPS", 1)
    model = Mnist_NN(hidden=20, device="cpu", generator=5)
    checkpoint.save_model(tmp_path / "model.safetensors", model, Normalization(0.25, 0.5))
    facts = page_facts.gather(tmp_path, digit=7, seed=1)
    np.testing.assert_array_equal(facts.inputs["W1"], model.lin1.weight.data)
    assert facts.inputs["x"].min() == -0.5
    assert facts.inputs["target"][0] == 7
    assert str(tmp_path) in facts.network
    assert "784-20-10" in page.render(facts, seed=1)


def test_a_network_too_large_for_a_page_is_refused(tmp_path: Path) -> None:
    model = Mnist_NN(hidden=100, device="cpu")
    checkpoint.save_model(tmp_path / "model.safetensors", model, Normalization())
    with pytest.raises(InputError, match=r"784-100-10; expected .* at most 64 hidden units"):
        page_facts.gather(tmp_path, digit=3, seed=0)


@pytest.mark.parametrize("scale", [1e10, 1e30])
def test_numbers_that_no_trained_network_has_are_refused(tmp_path: Path, scale: float) -> None:
    model = Mnist_NN(hidden=20, device="cpu", generator=5)
    model.lin2.weight.data *= np.float32(scale)
    checkpoint.save_model(tmp_path / "model.safetensors", model, Normalization())
    with pytest.raises(InputError, match=r"expected .*: give another --checkpoint"):
        page_facts.gather(tmp_path, digit=3, seed=0)


# ------------------------------------------------------------------------------- the file


def test_the_page_is_one_file_below_2_MB(mine: Facts) -> None:
    assert len(page.render(mine, seed=0).encode()) < 2_000_000


def test_the_page_refers_to_nothing_outside(facts: Facts) -> None:
    assert not re.search(r"\b(src|href)\s*=|@import|url\(", page.render(facts, seed=0))


def test_every_formula_is_well_formed_mathml() -> None:
    formulas = re.findall(r"\{\{math (.*?)\}\}(?!\})", page._read("page.html"))
    assert len(formulas) > 12
    for formula in formulas:
        assert ElementTree.fromstring(mathml.block(formula)).tag == "math"


def test_a_formula_in_mathml() -> None:
    assert mathml.inline("dW[j] = Σ_n {1}/{N} xᵀ") == (
        '<math><mrow><msub><mi mathvariant="normal">dW</mi><mrow><mi>j</mi></mrow></msub>'
        '<mo>=</mo><munder><mo movablelimits="false">∑</mo><mi>n</mi></munder>'
        "<mfrac><mrow><mn>1</mn></mrow><mrow><mi>N</mi></mrow></mfrac>"
        '<msup><mi mathvariant="normal">x</mi><mi>T</mi></msup></mrow></math>'
    )


def test_a_line_of_code_has_the_number_that_it_has_in_the_file() -> None:
    number = page.line_number("linear_backward", "grad_weight = grad_output.T @ x")
    assert Path(functional.__file__).read_text(encoding="utf-8").splitlines()[number - 1] == (
        "    grad_weight = grad_output.T @ x"
    )


def test_a_line_that_is_no_longer_there_is_an_error() -> None:
    with pytest.raises(LookupError, match="linear_backward has 0 lines 'grad_weight = 0'"):
        page.line_number("linear_backward", "grad_weight = 0")


def test_the_command_writes_the_page(
    mine: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def gather(*arguments: Any) -> Facts:
        asked.append(arguments)
        return mine

    monkeypatch.setattr(page_facts, "gather", gather)
    assert mine.mine is not None
    out, file = tmp_path / "page.html", str(mine.mine.file)
    arguments = ["study", "page", "--digit", "5", "--seed", "2", "--mine", file, "--out", str(out)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert asked == [(None, 5, 2)]
    assert "the mask is made of the gradient" in result.output
    assert out.as_uri() in result.output
    assert "Your own gradients" in out.read_text(encoding="utf-8")


NO_GRADIENTS = [
    ("def network_backward(", "line 1"),
    ("import numpy as np\n", "there is no function network_backward"),
    ("def network_backward(x, target, W1, b1, W2, b2):\n    return 1 / 0", "division by zero"),
    ("def network_backward(x, target, W1, b1, W2, b2):\n    exit()", "exit"),
    ("def network_backward(x, target, W1, b1, W2, b2):\n    return W1, b1", "expected dW1"),
]


@pytest.mark.parametrize(("text", "words"), NO_GRADIENTS)
def test_a_file_without_gradients_is_refused_before_anything_is_trained(
    tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    assert words in refused(tmp_path, "--mine", file)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--mine", "nowhere/x: No such file"),
        ("--checkpoint", "nowhere/x: there is no such file"),
        ("--out", "nowhere/x: can't be written"),
    ],
)
def test_a_path_that_is_not_there_is_refused_before_anything_is_trained(
    tmp_path: Path, option: str, words: str
) -> None:
    assert words in refused(tmp_path, option, tmp_path / "nowhere" / "x")


def refused(tmp_path: Path, *options: object) -> str:
    """The error, in one line, of a command that neither trains nor leaves a file."""
    before = [*tmp_path.iterdir()]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(page_facts, "_train", lambda *_: pytest.fail("it has trained"))
        patch.setattr(page_facts, "_trained", lambda *_: pytest.fail("it has trained"))
        result = CliRunner().invoke(main, ["study", "page", *map(str, options)])
    assert result.exit_code == 2
    assert [*tmp_path.iterdir()] == before
    (error,) = (line for line in result.output.splitlines() if line.startswith("Error: "))
    assert result.output.endswith(f"{error}\n")
    return error


# ------------------------------------------------------------------------------- the browser


@in_browser
def test_it_opens_within_a_second(opened: Page) -> None:
    ready = float(opened.evaluate("document.documentElement.dataset.ready"))
    assert ready < 1000 * SLACK


@in_browser
def test_a_stage_is_shown_when_it_has_its_numbers(
    browser: Browser, facts: Facts, tmp_path: Path
) -> None:
    opened = Opened(browser, facts, tmp_path)
    assert opened.page.locator(".stage:visible").count() == 1
    opened.page.add_init_script("Blob.prototype.stream = () => new ReadableStream()")  # for ever
    opened.page.goto(opened.file.as_uri())
    for waiting in (".stage", ".scrubber", "#nudge", "#problem"):
        assert opened.page.locator(f"{waiting}:visible").count() == 0
    assert opened.page.locator("#planted").is_visible()
    opened.close()


@in_browser
def test_without_a_script_the_words_are_there(
    browser: Browser, facts: Facts, tmp_path: Path
) -> None:
    file = tmp_path / "study.html"
    file.write_text(page.render(facts, seed=0), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(file.as_uri())
    assert "are drawn by a script" in opened.locator("noscript").inner_text()
    assert opened.locator(".stage:visible").count() == len(STAGES)
    context.close()


@in_browser
def test_the_scrubber_goes_forward_and_then_backward(opened: Page) -> None:
    seen = []
    for k in range(len(STAGES)):
        visible = opened.locator(".stage:visible")
        assert visible.count() == 1
        seen.append(visible.get_attribute("data-stage"))
        where = opened.locator("#where").inner_text()
        direction = "backward" if k > STAGES.index("loss") else "forward"
        assert where == f"{STAGES[k]}, {direction}, {k + 1} of {len(STAGES)}"
        assert opened.locator(".node[aria-current]").get_attribute("data-array") == STAGES[k]
        if k + 1 < len(STAGES):
            opened.locator("#on").click()
    assert seen == STAGES
    assert opened.locator("#on").is_disabled()
    opened.locator("#back").click()
    assert opened.locator(".stage:visible").get_attribute("data-stage") == STAGES[-2]


@in_browser
def test_the_arrow_keys_move_the_scrubber(opened: Page) -> None:
    for focus in ("body", "#stage", ".node"):
        go(opened, "z2")
        opened.locator(focus).first.focus()
        opened.keyboard.press("ArrowRight")
        assert opened.locator(".stage:visible").get_attribute("data-stage") == "p"
        opened.keyboard.press("ArrowLeft")
        opened.keyboard.press("ArrowLeft")
        assert opened.locator(".stage:visible").get_attribute("data-stage") == "h"


@in_browser
def test_a_box_of_the_picture_leads_to_its_stage(opened: Page) -> None:
    for name in (*STAGES, *PARAMETERS):
        opened.locator(f".node[data-array={name}]").click()
        assert opened.locator(".stage:visible").get_attribute("data-stage") == stage_of(name)


@in_browser
def test_a_stage_has_shape_formula_and_line_of_code(opened: Page, facts: Facts) -> None:
    source = Path(functional.__file__).read_text(encoding="utf-8").splitlines()
    for name, truth in facts.truths.items():
        stage = go(opened, name)
        shape = str(truth.value.shape) if truth.value.shape else "one number"
        assert shape in stage.locator(".shape").inner_text()
        box = stage.locator("math").first.bounding_box()
        assert box is not None
        assert box["width"] > 40
        lines = stage.locator("> .line").all()
        assert lines
        for line in lines:
            place = int(line.locator(".source").inner_text().removeprefix("functional.py:"))
            assert source[place - 1].strip() == line.locator("code").inner_text()


@in_browser
@pytest.mark.parametrize("name", [*STAGES[1:], *PARAMETERS])
def test_an_entry_that_is_clicked_is_pythons(opened: Page, facts: Facts, name: str) -> None:
    array = facts.inputs[name] if name in PARAMETERS else facts.truths[name].value
    for index in indices(name, array, 5):
        panel = choose(opened, name, index)
        title, value = panel.locator("h3").inner_text().split(" = ")
        assert title == entry(name, index)
        assert number(value) == near(array[index])
        assert value_in(panel, "scratchnet") == near(array[index])
        if name not in PARAMETERS:
            assert value_in(panel, "computed here") == near(array[index])
            assert value_in(panel, "PyTorch") == near(array[index])


@in_browser
@pytest.mark.parametrize("name", ["dW1", "db1", "dW2", "db2", "dh"])
def test_a_gradient_is_the_sum_of_the_terms_shown(opened: Page, facts: Facts, name: str) -> None:
    """Eight numbers, each to 5e-6 of itself, so their sum to 5e-6 of the sum of their sizes."""
    values = facts.inputs | {step: truth.value for step, truth in facts.truths.items()}
    for index in indices(name, values[name], 6):
        rows = choose(opened, name, index).locator(".terms tr").all()
        assert len(rows) == (page_facts.SAMPLES if name != "dh" else 10)
        kept = []
        for n, row in enumerate(rows):
            term = number(row.locator("td").nth(2).inner_text())
            for parts in row.locator("small:not(.why)").all_inner_texts():
                factors = [number(part) for part in parts.split("·")]
                assert term == pytest.approx(np.prod(factors), rel=1.1e-3)  # of four digits each
            is_off = row.get_attribute("class") == "off"
            unit = {"dW1": 0, "db1": 0, "dW2": 1}.get(name)
            masked = unit is not None and values["z1"][n, index[unit]] <= 0
            assert is_off == masked
            if is_off:
                style = row.locator("span").evaluate("e => getComputedStyle(e).textDecorationLine")
                assert style == "line-through"
            else:
                kept.append(term)
        size = sum(map(abs, kept))
        assert sum(kept) == pytest.approx(values[name][index], abs=5e-6 * size + 1e-15)


@in_browser
@pytest.mark.parametrize("name", ["z2", "p", "dz2", "db2"])
def test_a_table_of_numbers_is_pythons(opened: Page, facts: Facts, name: str) -> None:
    """Three decimals at the least, of a common power of ten."""
    stage = go(opened, name)
    cells = grid_of(opened, name).locator("td").all_inner_texts()
    legend = stage.locator(".legend").first.inner_text()
    power = re.search(r"× 10⁻([⁰¹²³⁴⁵⁶⁷⁸⁹]+)", legend)
    scale = 10.0 ** -"⁰¹²³⁴⁵⁶⁷⁸⁹".index(power[1]) if power else 1.0
    array = facts.truths[name].value
    decimals = len(cells[0].split(".")[1])
    found = np.array([number(text) for text in cells]).reshape(array.shape) * scale
    np.testing.assert_allclose(found, array, rtol=0, atol=0.51 * scale * 10.0**-decimals)
    assert abs(array).max() > 100 * scale * 10.0**-decimals


@in_browser
def test_pytorchs_difference_is_shown(opened: Page, facts: Facts) -> None:
    assert facts.torch is not None
    difference = facts.torch["dW2"].difference
    for wanted in (difference != 0, difference == 0):
        index = tuple(int(i) for i in np.argwhere(wanted)[0])
        row = choose(opened, "dW2", index).locator(".sums tr").filter(has_text="PyTorch")
        note = row.locator("td").nth(2).inner_text()
        if difference[index]:
            assert number(note.lstrip("+")) == pytest.approx(difference[index], rel=0.05)
        else:
            assert note == "exactly the same"
    table = opened.locator("#pytorch tr").filter(has_text="dW1").inner_text()
    assert f"{(facts.torch['dW1'].difference == 0).sum():,} of 39,200" in table


@in_browser
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_nudge_moves_the_loss_as_python_computes_it(
    opened: Page, facts: Facts, name: str
) -> None:
    gradient = facts.truths[f"d{name}"].value
    (index,) = indices(name, gradient, 1)
    choose(opened, f"d{name}", index)
    slider, told = opened.locator("#delta"), opened.locator("#nudged dd")
    assert opened.locator("#weight").inner_text() == entry(name, index)
    start, apart = float(facts.truths["loss"].value), []
    for position in (-100, -37, 0, 1, 100):
        slider.fill(str(position))
        delta, weight, slope, loss, promise, gap, *_ = (number(t) for t in told.all_inner_texts())
        nudged = facts.inputs[name].copy()
        nudged[index] += delta
        truth = loss_of(facts.inputs | {name: nudged})
        assert weight == near(nudged[index])
        assert slope == near(gradient[index])
        assert loss == near(truth)
        assert promise == pytest.approx(start + gradient[index] * delta, rel=1e-5)
        assert gap == pytest.approx(truth - start - gradient[index] * delta, rel=1e-5, abs=1e-12)
        apart.append(abs(gap))
    assert apart[2] < 1e-12
    assert apart[3] < 1e-3 * max(apart)
    assert max(apart) > 0.1 * start


def loss_of(values: dict[str, Array]) -> float:
    h = functional.relu_forward(functional.linear_forward(values["x"], values["W1"], values["b1"]))
    logits = functional.linear_forward(h, values["W2"], values["b2"])
    return float(functional.cross_entropy_forward(logits, values["target"]))


@in_browser
def test_the_plot_shows_the_curve_and_its_tangent(opened: Page) -> None:
    choose(opened, "dW2", (8, 32))

    def place(kind: str) -> tuple[float, float]:
        x, y = (opened.locator(f"#plot .{kind}").get_attribute(name) for name in ("cx", "cy"))
        return float(x or "nan"), float(y or "nan")

    assert place("dot") == pytest.approx(place("ring"), abs=1e-6)
    opened.locator("#delta").fill("100")
    assert abs(place("dot")[1] - place("ring")[1]) > 20
    curve = opened.locator("#plot .curve").get_attribute("d") or ""
    end = [float(text) for text in curve.split("L")[-1].split(",")]
    assert place("dot") == pytest.approx(end, abs=0.1)  # to which the curve is drawn


@in_browser
@pytest.mark.parametrize("name", page_facts.BUGS)
def test_a_bug_that_is_switched_on_shows_its_gradients(
    opened: Page, facts: Facts, name: str
) -> None:
    bug = next(bug for bug in facts.bugs if bug.mistake.name == name)
    opened.locator(f".bug input[value={name}]").check()
    assert opened.locator("#spoilt").is_visible()
    for array, wrong in bug.gradients.wrong.items():
        node = opened.locator(f".node[data-array={array}]")
        assert ("wrong" in (node.get_attribute("class") or "")) == wrong.any()
        if not wrong.any():
            continue
        index = tuple(int(i) for i in np.argwhere(wrong)[-1])
        panel = choose(opened, array, index)
        assert value_in(panel, "with the bug") == near(bug.gradients.found[array][index])
        assert value_in(panel, "scratchnet") == near(facts.truths[array].value[index])
        marked = (
            grid_of(opened, array)
            .locator("td")
            .evaluate_all("cells => cells.map(cell => cell.classList.contains('wrong'))")
        )
        shown = wrong[index[0]] if array == "dW1" else wrong
        assert marked == shown.ravel().tolist()
    opened.get_by_role("button", name="show the true ones").click()
    expect(opened.locator(".wrong")).to_have_count(0)
    assert opened.locator(".bug input[value='']").is_checked()


@in_browser
def test_each_bug_has_its_curve_its_formulas_and_its_accuracy(opened: Page, facts: Facts) -> None:
    for bug in facts.bugs:
        card = opened.locator(".bug").filter(has=opened.locator(f"[value={bug.mistake.name}]"))
        text = card.inner_text()
        assert bug.mistake.belief in text
        assert f"{bug.training.accuracy:.1%} right" in text
        assert bug.verdict in text
        assert all(line in text for line in page_facts.BUGS[bug.mistake.name])
        assert card.locator("path.curve").count() == card.locator("path.true").count() == 1


@in_browser
def test_with_a_bug_the_promise_is_the_bugs(opened: Page, facts: Facts) -> None:
    choose(opened, "dW2", (8, 32))
    opened.locator(".bug input[value=cross_entropy_backward_not_averaged]").check()
    slope = number(opened.locator("#nudged dd").nth(2).inner_text())
    assert slope == near(page_facts.SAMPLES * facts.truths["dW2"].value[8, 32])
    assert "no tangent" in opened.locator("#plotted").inner_text()


@in_browser
def test_the_readers_own_gradients_are_beside_the_truth(
    browser: Browser, mine: Facts, tmp_path: Path
) -> None:
    assert mine.mine is not None
    assert mine.mine.ruling.name == "relu_backward_mask_of_the_upstream"
    opened = Opened(browser, mine, tmp_path)
    section = opened.page.locator("#mine")
    assert mine.mine.ruling.message in section.inner_text()
    assert "taken over" in section.inner_text()  # as text, and not as a script
    assert opened.page.title() == "Backprop, number by number"
    opened.page.locator(".bug input[value=mine]").check()
    for name, wrong in mine.mine.gradients.wrong.items():
        assert wrong.any() == (name in ("dz1", "dW1", "db1"))
        index = tuple(int(i) for i in np.argwhere(wrong == wrong.any())[0])
        panel = choose(opened.page, name, index)
        assert value_in(panel, "yours") == near(mine.mine.gradients.found[name][index])
        note = panel.locator(".sums tr").filter(has_text="yours").locator("td").nth(2).inner_text()
        assert note == ("wrong" if wrong.any() else "right")
    opened.close()


@in_browser
@pytest.mark.parametrize(("text", "words"), NO_GRADIENTS)
def test_a_file_that_does_not_work_is_told_about(
    browser: Browser, facts: Facts, tmp_path: Path, text: str, words: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    made = page_facts.ask(file, facts)
    assert not made.ruling.ok
    opened = Opened(browser, facts._replace(mine=made), tmp_path)
    assert words in opened.page.locator("#mine").inner_text()
    assert opened.page.locator(".bug input[value=mine]").count() == 0
    opened.close()


@in_browser
def test_without_pytorch_the_page_says_so(browser: Browser, facts: Facts, tmp_path: Path) -> None:
    opened = Opened(browser, facts._replace(torch=None), tmp_path)
    assert "PyTorch is not installed" in opened.page.locator("#pytorch").inner_text()
    panel = choose(opened.page, "dW2", (8, 32))
    assert panel.locator(".sums tr").filter(has_text="PyTorch").count() == 0
    opened.close()


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_follow_the_system_and_the_switch(
    browser: Browser, facts: Facts, tmp_path: Path, scheme: str
) -> None:
    opened = Opened(browser, facts, tmp_path, color_scheme=scheme)

    def is_dark() -> bool:
        red = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return int(re.findall(r"\d+", red)[0]) < 128

    assert is_dark() == (scheme == "dark")
    for choice in ("dark", "light"):
        opened.page.locator(".theme label").filter(has_text=choice).click()
        assert is_dark() == (choice == "dark")
    opened.page.locator(".theme label").filter(has_text="auto").click()
    assert is_dark() == (scheme == "dark")
    opened.close()


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Browser, facts: Facts, tmp_path: Path, scheme: str) -> None:
    """4.5 to 1, as WCAG asks of text, also on the strongest colours of a table."""
    opened = Opened(browser, facts, tmp_path, color_scheme=scheme)
    paper, card, ink, faint, accent, pos, neg = (
        np.array(opened.page.evaluate(RGB_OF, name))
        for name in ("--paper", "--card", "--ink", "--faint", "--accent", "--pos", "--neg")
    )
    for text in (ink, faint, accent):
        assert min(contrast(text, paper), contrast(text, card)) >= 4.5
    style = "getComputedStyle(document.documentElement).getPropertyValue('--most')"
    most = float(opened.page.evaluate(style))
    for hue in (pos, neg):
        assert contrast(ink, most * hue + (1 - most) * paper) >= 4.5
    opened.close()


RGB_OF = """name => {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const probe = document.createElement("i");
  probe.style.color = value.startsWith("#") ? value : `rgb(${value})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
  probe.remove();
  return found;
}"""


def contrast(a: Array, b: Array) -> float:
    """WCAG's contrast of two colours."""

    def luminance(rgb: Array) -> float:
        c = rgb / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@in_browser
def test_the_arrow_keys_walk_through_a_table(opened: Page) -> None:
    panel = choose(opened, "dW2", (3, 10))
    for key, index in [
        ("ArrowRight", (3, 11)),
        ("ArrowDown", (4, 11)),
        ("ArrowLeft", (4, 10)),
        ("ArrowUp", (3, 10)),
        ("Home", (3, 0)),
        ("ArrowLeft", (3, 0)),
        ("End", (3, 49)),
    ]:
        opened.keyboard.press(key)
        assert panel.locator("h3").inner_text().split(" = ")[0] == entry("dW2", index)
        assert entry("dW2", index) in opened.locator("#said").inner_text()
    assert opened.locator(".stage:visible").get_attribute("data-stage") == "dW2"
    choose(opened, "dW1", (0, 5))
    opened.locator(".stage:visible .picker button").first.focus()
    opened.keyboard.press("ArrowDown")
    title = opened.locator(".stage:visible .entry h3").inner_text().split(" = ")[0]
    assert title == "dW1[10, 5]"


@in_browser
def test_everything_is_reached_by_the_tab_key_and_seen_to_be(opened: Page) -> None:
    go(opened, "dW1")
    reached = set()
    for _ in range(80):  # once around at least
        opened.keyboard.press("Tab")
        what, outline = opened.evaluate(FOCUSED)
        reached.add(what)
        assert outline != "none" or what == "BODY", what
    wanted = {"theme", "node", "back", "stage", "on", "picker", "td", "delta", "variant"}
    assert wanted <= reached


FOCUSED = """() => {
  const e = document.activeElement;
  const kind =
    e.id || e.name || (e.closest(".picker") && "picker") || e.classList[0] || e.localName;
  const seen = [e, e.nextElementSibling, e.closest(".bug")].filter(Boolean);
  const outlines = seen.map(each => getComputedStyle(each).outlineStyle);
  return [e === document.body ? "BODY" : kind, outlines.find(style => style !== "none") ?? "none"];
}"""


@in_browser
def test_on_paper_every_stage_is_laid_out(browser: Browser, facts: Facts, tmp_path: Path) -> None:
    opened = Opened(browser, facts, tmp_path, color_scheme="dark")
    printed = opened.page.pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 5
    opened.page.emulate_media(media="print")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.page.locator(".stage:visible").count() == len(STAGES)
    assert opened.page.locator(".stage:visible .entry").count() == len(STAGES)
    for gone in (".scrubber", ".theme", "#delta"):
        assert not opened.page.locator(gone).is_visible()
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    opened.close()


@in_browser
@pytest.mark.parametrize("width", [320, 390, 700, 1024, 1280])
def test_no_width_makes_the_page_scroll_sideways(
    browser: Browser, facts: Facts, tmp_path: Path, width: int
) -> None:
    opened = Opened(browser, facts, tmp_path, viewport={"width": width, "height": 844})
    for name in STAGES:
        go(opened.page, name)
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width, name
    opened.close()


@in_browser
def test_nothing_moves_for_who_wants_no_motion(
    browser: Browser, facts: Facts, tmp_path: Path
) -> None:
    opened = Opened(browser, facts, tmp_path, reduced_motion="reduce")
    durations = opened.page.evaluate(
        "[...document.querySelectorAll('*')].map(e => getComputedStyle(e))"
        ".flatMap(s => [s.transitionDuration, s.animationDuration])"
    )
    assert set(durations) == {"0s"}
    opened.close()


@in_browser
def test_the_policy_lets_nothing_out(browser: Browser, facts: Facts, tmp_path: Path) -> None:
    opened = Opened(browser, facts, tmp_path)
    tried = "fetch('https://example.org').then(() => 'went out', () => 'stopped')"
    assert opened.page.evaluate(tried) == "stopped"
    assert all("Content Security Policy" in text for text in opened.complaints)
    opened.complaints.clear()
    opened.close()


TIMED = """([selector, how]) => {
  const elements = [...document.querySelectorAll(selector)].filter(e => e.checkVisibility());
  return [0, 1, 2, 3, 4].map(k => elements.slice(0, 20).map(element => {
    const begin = performance.now();
    if (how === "click") element.click();
    else { element.value = how - k; element.dispatchEvent(new Event("input")); }
    document.body.getBoundingClientRect(); // so that it is laid out, too
    return performance.now() - begin;
  }));
}"""


@in_browser
@pytest.mark.parametrize(
    ("stage", "selector", "how"),
    [
        ("x", "#on", "click"),
        ("x", ".node", "click"),
        ("dW2", ".stage td", "click"),
        ("dW1", ".picker button", "click"),
        ("dW1", ".stage td", "click"),
        ("dW1", ".bug input", "click"),
        ("x", ".theme input", "click"),
        ("x", "#delta", "37"),
        ("x", "#stage", "11"),
    ],
)
def test_a_click_is_answered_at_once(opened: Page, stage: str, selector: str, how: str) -> None:
    go(opened, stage)
    times = np.array(opened.evaluate(TIMED, [selector, how]))  # five rounds of an element each
    assert times.min(axis=0).max() < 50 * SLACK
