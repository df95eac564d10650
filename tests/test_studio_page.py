"""The studio's page in a real browser: Chromium, headless, as a person uses it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_service import png  # noqa: F401
from test_studio import BOARD, studio

import framepack_relax as fr
from framepack_relax.farm.boards import Boards

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[dev]'")
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium for the studio's page: apt-get install chromium chromium-driver"
)
ActionChains = webdriver.ActionChains
AXE = Path(__file__).with_name("axe.min.js")
FOCUSABLE = "a[href], button:not(:disabled), input:not(:disabled), select, textarea, video, [tabindex]"


class Page:
    """A browser, and what a person does with it."""

    def __init__(self, driver) -> None:
        self.driver = driver

    def at(self, it, path: str = "/") -> "Page":
        """Opens the page of a service, with nothing left of one before."""
        self.driver.get("about:blank")
        self.driver.get(f"{it if isinstance(it, str) else str(it.client.base_url).rstrip('/')}{path}")
        return self

    def all(self, css: str) -> list:
        return self.driver.find_elements("css selector", css)

    def one(self, css: str):
        return self.until(lambda: next(iter(self.all(css)), None), css)

    def field(self, path: str):
        return self.one(f"[id='field-{path}']")

    def click(self, css: str):
        def there():
            self.js("arguments[0].scrollIntoView({block: 'nearest'})", element := self.all(css)[0])
            return element

        self.one(css)
        element = self.until(there, css)
        element.click()
        return element

    def write(self, path: str, text: str) -> None:
        """Types into a field, over what stands there."""
        self.field(path).send_keys(Keys.CONTROL, "a")
        self.field(path).send_keys(Keys.BACKSPACE if text == "" else text)

    def js(self, code: str, *given):
        return self.driver.execute_script(code, *given)

    def until(self, true, what: str = "", seconds: float = 60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := true():
                    return found
            except WebDriverException:  # it was drawn anew meanwhile
                pass
            time.sleep(0.05)
        raise AssertionError(f"{what} did not come; the page: {self.js('return document.body.innerText')[:1500]}")

    def drag(self, css: str, right: int, down: int) -> None:
        chain = ActionChains(self.driver, duration=20).click_and_hold(self.one(css))
        for part in range(1, 9):
            before = part - 1
            chain.move_by_offset(right * part // 8 - right * before // 8, down * part // 8 - down * before // 8)
        chain.pause(0.05).release().perform()

    def mistakes(self) -> list[str]:
        """What the browser's console has of errors."""
        said = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [text for text in said if not re.search(r"status of (409|422)|ERR_CONNECTION|ERR_INCOMPLETE", text)]


@pytest.fixture(scope="module")
def driver():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1360,1000"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(driver):
    page = Page(driver)
    yield page
    driver.get("about:blank")
    assert page.mistakes() == []


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "story.yaml").write_text(BOARD)
    return tmp_path


def read(folder: Path, name: str = "story") -> str:
    return (folder / f"{name}.yaml").read_text()


def holds(page: Page, folder: Path, text: str, name: str = "story") -> None:
    """Waits until a board's file holds a text."""
    page.until(lambda: text in read(folder, name), f"{text!r} in the file")


@pytest.mark.slow
def test_a_first_film_from_an_empty_folder_to_one_that_plays(page, tmp_path):
    words = [sys.executable, "-m", "framepack_relax", "studio", str(tmp_path), "--port", "0", "--workers", "1"]
    words += ["--host", "0.0.0.0", "--token", "a&b#c+d%41"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        page.at(process.stdout.readline().split()[-1], "")
        page.click("#begin")
        page.click("#tab-film")
        page.write("steps", "2")
        holds(page, tmp_path, "steps: 2", "film")
        page.click("#render")
        page.until(lambda: page.one("#progress").text, "progress")
        page.until(lambda: page.all("#download"), "the film", 300)
        assert "is as the storyboard says" in page.one("#making").text
        page.js("document.querySelector('video').muted = true; document.querySelector('video').play()")
        page.until(lambda: page.js("return document.querySelector('video').currentTime") > 0.2, "that it plays")
        strips = "return [...document.querySelectorAll('.picture')].map((one) => one.style.backgroundImage)"
        page.until(lambda: sum("blob:" in one for one in page.js(strips)) == 3, "pictures of the film on the cards")
        assert len(page.all(".jump")) == 2 and len(page.all(".ticks [data-done=true]")) == 4
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 4
    assert fr.plan(tmp_path / "film.yaml").frames == 145 and (tmp_path / "out/film/video.mp4").stat().st_size > 5000


def test_every_control_does_what_it_says(page, folder, png):  # noqa: F811
    (folder / "other.yaml").write_text(BOARD)
    (folder / "hero.webp").write_bytes(png)
    with studio(folder) as it:
        page.at(it, "/#story")
        used = {"#board", "#saved"}

        def use(css: str):
            used.add(css)
            return page.click(css)

        page.until(lambda: len(page.all(".card")) == 2)
        colour = lambda: page.js("return getComputedStyle(document.body).backgroundColor")  # noqa: E731
        before = colour()
        use("#theme"), page.click("#theme")
        page.until(lambda: colour() != before)
        page.click("#theme")
        page.js("arguments[0].value = 'other'; arguments[0].dispatchEvent(new Event('change'))", page.one("#board"))
        page.until(lambda: page.driver.current_url.endswith("#other"))
        page.js("location.hash = 'story'")
        page.until(lambda: page.one("#board").get_attribute("value") == "story")

        for path, text, written in (
            ("scenes[0].prompt", "a figure, waving", 'prompt: "a figure, waving"'),
            ("scenes[0].seconds", "2.4", "seconds: 2.4"),
            ("scenes[0].id", "first", "id: first"),
            ("scenes[0].seed", "7", "seed: 7"),
        ):
            page.write(path, text)
            holds(page, folder, written.replace('"', "'") if '"' in written else written)
        page.field("scenes[0].intensity").send_keys(Keys.END)
        holds(page, folder, "intensity: 1")
        page.click("[id='auto-scenes[0].intensity']")
        holds(page, folder, "intensity: auto")
        page.click("[id='auto-scenes[0].intensity']")
        page.field("scenes[0].transition").send_keys("w")
        holds(page, folder, "transition: cut}" if "transition: cut}" in read(folder) else "transition: cut")
        page.field("scenes[0].image").send_keys(str(folder / "hero.webp"))
        holds(page, folder, "image: hero")
        page.click("[id='no-scenes[0].image']")
        page.until(lambda: "image: hero" not in read(folder))
        page.js(
            """const dropped = new DataTransfer();
            dropped.items.add(new File([Uint8Array.from(arguments[0])], "dropped.png", { type: "image/png" }));
            document.querySelector(".drop").dispatchEvent(
                new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: dropped }))""",
            list(png),
        )
        holds(page, folder, "image: dropped.png")
        assert (folder / "dropped.png").read_bytes() == png

        use("#add-after")
        page.until(lambda: len(page.all(".card")) == 3)
        holds(page, folder, "id: scene-3")
        order = lambda: re.findall(r"id: ([\w-]+)", read(folder))  # noqa: E731
        use("#earlier")
        page.until(lambda: order() == ["scene-3", "first", "b"])
        use("#later")
        page.until(lambda: order() == ["first", "scene-3", "b"])
        page.until(lambda: page.one(".card.selected b").text == "scene-3")
        use("#take-out")
        page.until(lambda: order() == ["first", "b"])
        use("#undo")
        page.until(lambda: order() == ["first", "scene-3", "b"])
        use("#redo")
        page.until(lambda: order() == ["first", "b"])
        use("#add")
        page.until(lambda: len(page.all(".card")) == 3)

        use("#tab-film")
        for path, text, written in (
            ("title", "Mine: all", "title: 'Mine: all'"),
            ("style", "in oil", "style: in oil"),
            ("seed", "5", "seed: 5"),
            ("steps", "9", "steps: 9"),
            ("negative_prompt", "fog", "negative_prompt: fog"),
        ):
            page.write(path, text)
            holds(page, folder, written)
        page.write("model", "puppet")
        page.until(lambda: page.field("model").get_attribute("value") == "puppet")
        page.write("model", "fake")
        holds(page, folder, "model: fake")
        page.field("speed").send_keys("fa")
        holds(page, folder, "speed: fast")

        use("#tab-text")
        editor = page.one("#yaml")
        editor.send_keys(Keys.CONTROL, Keys.END)
        editor.send_keys("# by hand")
        use("#revert")
        assert "# by hand" not in page.one("#yaml").get_attribute("value")
        page.one("#yaml").send_keys(Keys.CONTROL, Keys.END)
        page.one("#yaml").send_keys("# by hand")
        use("#save")
        holds(page, folder, "# by hand")

        use("#tab-scene")
        use("#draft")
        use("#accept")
        holds(page, folder, "start_from: {folder: out/story.draft}")
        page.click("#tab-film")
        page.write("start_from.strength", "0.9")
        holds(page, folder, "strength: 0.9")
        use("#reject")
        page.until(lambda: "start_from" not in read(folder))
        page.click("#tab-scene")
        use("#render")
        page.until(lambda: page.all("#download"), "the film")
        used.add("#download")
        page.click(".view:last-child")
        page.until(lambda: "story.draft" in page.js("return document.querySelector('video').src"))
        use("#more-takes")
        page.until(lambda: len(page.all(".take img")) == 4, "the takes")
        assert page.until(
            lambda: page.js("return [...document.querySelectorAll('.take img')].every((i) => i.complete)")
        )
        page.click("#takes li:nth-child(2) .take")
        holds(page, folder, "take: 2-")
        page.until(lambda: page.one("#takes li:nth-child(2) .take").get_attribute("aria-pressed") == "true")
        use("#lock")
        holds(page, folder, "lock: true")
        page.until(lambda: page.all(".card.selected .tag"))
        page.until(lambda: page.one("#lock").is_selected()) and page.click("#lock")
        page.until(lambda: "lock:" not in read(folder))
        use("#new")
        page.until(lambda: (folder / "film.yaml").exists() and page.one("#board").get_attribute("value") == "film")
        ids = {f"#{e.get_attribute('id')}" for e in page.all("button[id], a[id]")}
        assert {name for name in ids if "scenes[" not in name} <= used | {"#render"}, ids - used


def test_cards_are_dragged_up_wide_and_along(page, folder):
    with studio(folder, shut=True) as it:
        page.at(it)
        page.until(lambda: len(page.all(".card")) == 2)
        level = lambda: float(page.one(".card:nth-child(2) .stage").get_attribute("aria-valuenow"))  # noqa: E731
        page.js("""window.touched = new Set(); new MutationObserver((all) => all.forEach(({target}) => touched.add(
            (target.closest ?? (() => target.parentElement.closest('.card'))).call(target, '.card')?.textContent)))
            .observe(document.querySelector('#strip ol'), {subtree: true, attributes: true, childList: true})""")
        page.click(".card:nth-child(2) .face")
        page.js("touched.clear()")
        page.drag(".card:nth-child(2) .stage", 0, -44)
        holds(page, folder, "intensity: 0.4")
        assert level() == 0.4 and "intensity: 0.4\n" in read(folder)
        page.drag(".card:nth-child(2) .stage", 0, 60)
        holds(page, folder, "intensity: 0\n")
        for keys, wanted in (([Keys.ARROW_UP] * 3, 0.15), ([Keys.ARROW_DOWN], 0.1), ([Keys.END], 1), ([Keys.HOME], 0)):
            page.one(".card:nth-child(2) .stage").send_keys(*keys)
            holds(page, folder, f"intensity: {wanted:g}\n")
        step = fr.plan(folder / "story.yaml").scenes[1]
        wide = page.one(".card:nth-child(2)").size["width"]
        page.drag(".card:nth-child(2) .stretch", 300, 0)
        page.until(lambda: len(fr.plan(folder / "story.yaml").scenes[1].sections) > len(step.sections))
        page.until(lambda: page.one(".card:nth-child(2)").size["width"] > wide + 50)
        frames = fr.plan(folder / "story.yaml").frames
        page.one(".card:nth-child(2) .stretch").send_keys(Keys.ARROW_LEFT)
        page.until(lambda: fr.plan(folder / "story.yaml").frames == frames - 4)  # a unit of this model
        page.drag(".card:nth-child(2) .grip", -150, 0)
        page.until(lambda: re.findall(r"id: (\w+)", read(folder)) == ["b", "a"], "the other order")
        page.until(lambda: [e.text for e in page.all(".card b")] == ["b", "a"])
        page.one(".card.selected .face").send_keys(Keys.ALT + Keys.ARROW_RIGHT)
        page.until(lambda: re.findall(r"id: (\w+)", read(folder)) == ["a", "b"])
        page.one(".card.selected .face").send_keys(Keys.DELETE)
        page.until(lambda: re.findall(r"id: (\w+)", read(folder)) == ["a"])


def test_a_mistake_stands_at_its_field_and_what_was_typed_stays(page, folder):
    with studio(folder, shut=True) as it:
        page.at(it)
        page.until(lambda: len(page.all(".card")) == 2)
        page.write("scenes[0].seconds", "soon")
        wrong = page.one("[id='field-scenes[0].seconds-wrong']").text
        assert "number" in wrong and page.field("scenes[0].seconds").get_attribute("aria-invalid") == "true"
        assert page.field("scenes[0].seconds").get_attribute("value") == "soon" and read(folder) == BOARD
        page.write("scenes[0].seconds", "2")
        holds(page, folder, "seconds: 2}")
        page.until(lambda: not page.all("[id='field-scenes[0].seconds-wrong']"))
        assert "becomes" in page.one("[id='field-scenes[0].seconds-hint']").text  # the grid's rounding

        page.write("scenes[0].id", "b")
        assert "scenes[1].id" in page.one("[id='field-scenes[0].id-wrong']").text  # which it would be a mistake at
        page.write("scenes[0].id", "a")
        page.until(lambda: not page.all(".mistake"))

        (folder / "story.yaml").write_text(read(folder).replace("prompt: two", "prmpt: two"))
        page.until(lambda: "prmpt" in page.one("#told").text)
        assert "prompt" in page.one("#told").text and not page.all("#render")
        (folder / "story.yaml").write_text("scenes: [\n")
        page.until(lambda: "is not YAML" in page.one("#told").text)
        page.click("#tab-text")
        page.one("#yaml").send_keys(Keys.CONTROL, "a")
        page.one("#yaml").send_keys(BOARD.replace("  - id: b\n    ", "  - id: b\n").replace("\n    ", "\n"))
        page.click("#save")
        page.until(lambda: len(page.all(".card")) == 2)


def test_what_is_edited_outside_appears_and_a_stale_change_waits_for_a_word(page, folder, monkeypatch):
    with studio(folder, shut=True) as it:
        page.at(it)
        page.until(lambda: len(page.all(".card")) == 2)
        (folder / "story.yaml").write_text(read(folder).replace("prompt: one", "prompt: from outside"))
        page.until(lambda: page.one(".card .face").text.endswith("from outside"))
        now = Boards(folder).versions()
        monkeypatch.setattr(Boards, "versions", lambda boards: now)  # as a watch that is slow
        (folder / "story.yaml").write_text(read(folder).replace("from outside", "another"))
        page.write("scenes[0].seconds", "2.4")
        page.until(lambda: "changed outside meanwhile" in page.one("#notice").text)
        assert "another" in read(folder) and "2.4" not in read(folder)
        assert page.one(".card .face").text.endswith("another")
        page.click("#notice button")
        holds(page, folder, "seconds: 2.4")
        assert "prompt: another" in read(folder)


def test_a_reload_in_mid_render_and_a_restart_lose_nothing(page, folder):
    with studio(folder, shut=True) as it:
        page.at(it)
        port = int(str(it.client.base_url).rpartition(":")[2])
        page.click("#render")
        page.until(lambda: "0 of 4 sections" in page.one("#progress").text)
        page.driver.refresh()
        page.until(lambda: "0 of 4 sections" in page.one("#progress").text)
        page.click("#cancel")
        page.until(lambda: page.all("#render"))
        it.queue.executor.gate.set()
        page.click("#render")
        page.until(lambda: page.all("#download"), "the film")
        page.write("scenes[1].seconds" if page.all("[id='field-scenes[1].seconds']") else "scenes[0].seconds", "2.4")
        page.until(lambda: page.all("#render"), "something to render again")
        it.queue.executor.gate.clear()
        page.click("#render")
        page.until(lambda: page.all("#cancel"))
    page.until(lambda: "does not answer" in page.one("#notice").text, "that nobody answers")
    with studio(folder, port=port) as it:
        page.until(lambda: page.all("#render"), "that it is back")
        page.click("#render")
        page.until(lambda: page.all("#download"), "the film")
        assert it.client.get("/films/story").json()["state"] == "done"


def test_two_hundred_scenes_stay_fluid(page, tmp_path):
    scene = "  - {{id: s{0}, prompt: a figure walks {0}, seconds: 1.3, intensity: 0.{1}}}\n"
    scenes = "".join(scene.format(number, number % 9 + 1) for number in range(200))
    (tmp_path / "long.yaml").write_text(f"model: fake\nsteps: 8\nscenes:\n{scenes}")
    with studio(tmp_path, shut=True) as it:
        page.at(it)
        page.until(lambda: len(page.all(".card")) == 200)
        taken = page.driver.execute_async_script("""
            const done = arguments[0], others = new Set(), taken = [];
            const card = document.querySelectorAll(".card")[5], stage = card.querySelector(".stage");
            const watch = new MutationObserver((all) => all.forEach(({ target }) =>
              card.contains(target) || others.add(target)));
            stage.setPointerCapture = () => {};
            const send = (kind, y) =>
              stage.dispatchEvent(new PointerEvent(kind, { bubbles: true, clientY: y, pointerId: 1 }));
            send("pointerdown", 300);
            setTimeout(async () => {
              watch.observe(document.querySelector("#strip"), { subtree: true, attributes: true, childList: true });
              for (let step = 0; step < 60; step += 1) {
                const begun = performance.now();
                send("pointermove", 300 - step);
                await Promise.resolve();
                taken.push(performance.now() - begun);
                await new Promise(requestAnimationFrame);
              }
              watch.disconnect();
              send("pointerup", 240);
              done({ others: others.size, median: taken.sort((a, b) => a - b)[30], most: taken.at(-1) });
            }, 300)""")
        print(taken)
        assert taken["others"] == 0  # only the card that is dragged is drawn
        assert taken["median"] < 50  # ms of script a move
        holds(page, tmp_path, "prompt: a figure walks 5, seconds: 1.3, intensity: 1}", "long")


def test_with_a_token_the_address_opens_the_page_and_nothing_else_does(page, folder):
    with studio(folder, shut=True, token="s3cret") as it:
        page.driver.delete_all_cookies()
        page.at(it)
        assert "a token is needed" in page.js("return document.body.innerText")
        page.at(it, "/?token=s3cret")
        page.until(lambda: len(page.all(".card")) == 2)
        page.write("scenes[0].prompt", "told")
        holds(page, folder, "prompt: told")
        page.driver.delete_all_cookies()
        page.driver.get_log("browser")


@pytest.mark.parametrize("look", ["light", "dark"])
def test_axe_finds_nothing_serious(page, folder, tmp_path, look):
    empty = tmp_path / "empty"
    empty.mkdir()
    features = [{"name": "prefers-color-scheme", "value": look}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def look_at(where: str) -> None:
        page.js(AXE.read_text(encoding="utf8"))
        found = page.driver.execute_async_script("axe.run().then(arguments[0])")["violations"]
        grave = [one for one in found if one["impact"] in ("serious", "critical")]
        assert grave == [], (
            where,
            [(one["id"], [n["html"] + n["failureSummary"] for n in one["nodes"]]) for one in grave],
        )

    with studio(empty, shut=True) as it:
        page.at(it).one("#begin")
        look_at("welcome")
    (folder / "story.yaml").write_text(BOARD.replace("seconds: 1.3   # short", "seconds: 1.9"))
    with studio(folder) as it:
        page.at(it).click("#render")
        page.until(lambda: page.all("#download"))
        for tab in ("scene", "film", "text"):
            page.click(f"#tab-{tab}")
            look_at(tab)
        page.click("#tab-scene")
        page.write("scenes[0].seconds", "soon")
        page.one("[id='field-scenes[0].seconds-wrong']")
        look_at("with a mistake")


def test_every_control_is_reached_with_the_keyboard_and_shows_it(page, folder):
    with studio(folder, shut=True) as it:
        page.at(it)
        page.until(lambda: len(page.all(".card")) == 2 and page.all("#render"))
        wanted = page.js(f"""return [...document.querySelectorAll({json.dumps(FOCUSABLE)})]
            .filter((e) => e.tabIndex >= 0 && e.checkVisibility()).map((e) => e.outerHTML.slice(0, 120))""")
        reached, unseen = set(), set()
        page.js("document.activeElement.blur(); window.scrollTo(0, 0)")
        for _ in range(len(wanted) + 5):
            ActionChains(page.driver).send_keys(Keys.TAB).perform()
            html, shown = page.js("""const e = document.activeElement, style = getComputedStyle(e);
                return [e.outerHTML.slice(0, 120), style.outlineStyle !== "none" && style.outlineWidth !== "0px"]""")
            reached.add(html)
            unseen |= set() if shown or html.startswith("<body") else {html}
        assert set(wanted) <= reached and unseen == set(), (set(wanted) - reached, unseen)
