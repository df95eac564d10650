"""The studio's page beside other windows, other storyboards and other programs: nobody's words are lost."""

import os
import re
import time

from selenium.webdriver.common.keys import Keys
from test_service import png  # noqa: F401
from test_studio import BOARD, studio
from test_studio_page import driver, folder, holds, page, pytestmark, read  # noqa: F401

from framepack_relax.farm.boards import Boards

OTHER = BOARD.replace("A Film", "Another")


def choose(page, name: str) -> None:  # noqa: F811
    page.js(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", page.one("#board"), name
    )


def shown(page, name: str) -> None:  # noqa: F811
    """Waits for a storyboard."""
    page.until(lambda: page.one("#board").get_attribute("value") == name and page.all(".card"), name)


def at_end(page, text: str) -> None:  # noqa: F811
    page.one("#yaml").send_keys(Keys.CONTROL, Keys.END)
    page.one("#yaml").send_keys(text)


def text_of(page) -> str:  # noqa: F811
    return page.one("#yaml").get_attribute("value")


def saved(page) -> None:  # noqa: F811
    page.until(lambda: page.one("#saved").text == "saved", "that all is saved")


def test_what_is_typed_goes_to_the_storyboard_on_which_it_was_typed(page, folder, monkeypatch):  # noqa: F811
    (folder / "other.yaml").write_text(OTHER)
    with studio(folder, shut=True) as it:
        page.at(it, "/#story")
        shown(page, "story")
        page.click("#tab-text")
        at_end(page, "# mine")
        page.click("#tab-film"), page.click("#tab-text")
        assert text_of(page).endswith("# mine")
        choose(page, "other")
        page.until(lambda: text_of(page) == OTHER)
        assert not page.all("#save")
        choose(page, "story")
        page.until(lambda: text_of(page).endswith("# mine"))
        page.click("#save")
        holds(page, folder, "# mine")
        saved(page)
        page.click("#tab-scene")

        write = Boards.write
        monkeypatch.setattr(Boards, "write", lambda *given: (time.sleep(0.5), write(*given))[1])
        page.write("scenes[0].seconds", "2.4")
        page.write("scenes[0].prompt", "typed on story")
        choose(page, "other")
        page.write("scenes[0].seed", "5")  # while the other one is on its way
        saved(page)
        shown(page, "other")
        page.click(".card:nth-child(2) .face")
        page.write("scenes[1].prompt", "typed on other")
        page.js("location.hash = 'story'")
        shown(page, "story")
        saved(page)
        assert "typed on story, seconds: 2.4" in read(folder) and "typed on other" not in read(folder)
        assert "seed: 5" in read(folder) + read(folder, "other")
        assert "typed on other" in read(folder, "other") and "2.4" not in read(folder, "other")
    assert read(folder, "other").replace("typed on other", "two").replace(", seed: 5", "") == OTHER


def test_a_text_made_from_an_older_file_is_written_only_when_one_says_so(page, folder):  # noqa: F811
    with studio(folder, shut=True) as it:
        page.at(it)
        shown(page, "story")
        page.click("#tab-text")
        for turn, (button, kept) in enumerate(((2, "by others"), (1, "# mine"))):
            at_end(page, "# mine")
            before = read(folder)
            outside = f"{before.replace('prompt: two', 'prompt: by others')}# {turn}\n"
            (folder / "story.yaml").write_text(outside)
            page.until(lambda: "has changed since" in page.one("#text").text)
            page.click("#save")
            page.until(lambda: "changed outside meanwhile" in page.one("#notice").text)
            assert read(folder) == outside and text_of(page) == f"{before}# mine"
            page.click(f"#notice button:nth-of-type({button})")
            holds(page, folder, kept)
            page.until(lambda: not page.all("#save"))
            assert text_of(page) == read(folder)
            saved(page)


def test_a_change_goes_to_its_scene_wherever_others_have_moved_that(page, folder, monkeypatch):  # noqa: F811
    with studio(folder, shut=True) as it:
        page.at(it)
        shown(page, "story")
        page.write("scenes[0].seed", "none")
        page.until(lambda: page.all("[id='field-scenes[0].seed-wrong']"))
        now = Boards(folder).versions()
        monkeypatch.setattr(Boards, "versions", lambda boards: now)  # as a watch that is slow
        new = "scenes:\n  - {id: new, prompt: three, seconds: 1.3}\n"
        (folder / "story.yaml").write_text(read(folder).replace("scenes:\n", new))
        page.write("scenes[0].prompt", "of a")
        page.until(lambda: "changed outside meanwhile" in page.one("#notice").text)
        page.click(".card:nth-child(2) .face")
        page.until(lambda: page.field("scenes[1].seed").get_attribute("value") == "none")
        page.click("#notice button")
        holds(page, folder, "{id: a, prompt: of a,")
        assert "prompt: three" in read(folder)
        page.write("scenes[1].seed", "7")
        page.until(lambda: "seed: 7" in read(folder).split("id: a")[1].split("\n")[0])


def test_undo_leaves_what_others_wrote(page, folder):  # noqa: F811
    with studio(folder, shut=True) as it:
        page.at(it)
        shown(page, "story")
        page.write("title", "Mine") if page.all("#film") else page.write("scenes[0].prompt", "mine")
        holds(page, folder, "mine")
        saved(page)
        outside = read(folder).replace("prompt: two", "prompt: by others")
        (folder / "story.yaml").write_text(outside)
        page.until(lambda: page.one(".card:nth-child(2) .face").text.endswith("by others"))
        for button in ("#undo", "#redo"):
            page.click(button)
            page.until(lambda: "nothing to" in page.one("#notice").text)
            assert read(folder) == outside
        page.write("scenes[0].prompt", "again")
        holds(page, folder, "again")
        page.click("#undo")
        page.until(lambda: read(folder) == outside)


def test_many_windows_work_and_each_shows_what_another_wrote(page, folder):  # noqa: F811
    with studio(folder, shut=True) as it:
        first = page.driver.current_window_handle
        page.at(it)
        shown(page, "story")
        try:
            for _ in range(7):
                page.driver.switch_to.new_window("tab")
                page.at(it)
                shown(page, "story")
            page.write("scenes[0].prompt", "in the last window")
            holds(page, folder, "in the last window")
            saved(page)
        finally:
            for window in page.driver.window_handles:
                if window != first:
                    page.driver.switch_to.window(window)
                    page.driver.close()
            page.driver.switch_to.window(first)
        page.until(lambda: page.one(".card .face").text.endswith("in the last window"))
        page.write("scenes[0].prompt", "in the first")
        holds(page, folder, "in the first")
        for _ in range(8):
            page.at(it)  # pages that were left hold nothing either
            shown(page, "story")


def test_what_is_half_typed_outlives_the_page(page, folder):  # noqa: F811
    with studio(folder, shut=True) as it:
        page.at(it)
        shown(page, "story")
        page.write("scenes[0].prompt", "half typ")
        page.driver.refresh()
        holds(page, folder, "half typ")
        shown(page, "story")
        asks = "const e = new Event('beforeunload', {cancelable: true}); dispatchEvent(e); return e.defaultPrevented"
        saved(page)
        assert page.js(asks) is False
        page.write("scenes[0].seconds", "soon")
        page.one("[id='field-scenes[0].seconds-wrong']")
        assert page.js(asks) is True and page.one("#saved").text == "not saved"
        page.write("scenes[0].seconds", "2.4")
        saved(page)
        assert page.js(asks) is False


def test_a_folder_with_odd_files_is_told_and_shown(page, folder):  # noqa: F811
    (folder / "My_Film.yaml").write_text(BOARD)
    with studio(folder, shut=True) as it:
        page.at(it, "/#../films")
        shown(page, "story")
        page.until(lambda: "../films" in page.one("#notice").text)
        assert "No storyboard" not in page.js("return document.body.innerText")
        page.until(lambda: "my-film.yaml" in page.one("#told").text)
        for image in ("{a: b}", "[a.png]"):
            (folder / "story.yaml").write_text(
                BOARD.replace("seconds: 1.3}", f"seconds: 1.3, image: {image}}}") + f"image: {image}\n"
            )
            page.until(lambda: "image" in page.one("#told").text)
            assert len(page.all(".card")) == 2
        (folder / "story.yaml").write_text("model: fake\nscenes: [{id: a, prompt: one, seconds: 1.3}]\n")
        page.until(lambda: len(page.all(".card")) == 1)
        page.click("#add")
        page.until(lambda: "dash before each scene" in page.one("#notice").text)
        (folder / "story.yaml").unlink()
        page.at(it)
        page.until(lambda: "No storyboard yet" in page.js("return document.body.innerText"))
        assert "My_Film.yaml" in page.one(".welcome").text


def test_controls_touch_nothing_but_what_they_name(page, folder, png):  # noqa: F811
    (folder / "story.yaml").write_text(BOARD.replace("transition: cut", "transition: {blend: 2}"))
    drop = """const data = new DataTransfer(); data.items.add(new File(["none"], arguments[1], {type: "image/png"}));
        const event = new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: data});
        document.querySelector(arguments[0]).dispatchEvent(event); return event.defaultPrevented"""
    with studio(folder, shut=True) as it:
        page.at(it)
        shown(page, "story")
        page.one("#add").send_keys(Keys.DELETE)
        page.click(".card:nth-child(2) .face")
        chosen = lambda: page.field("scenes[1].transition").get_attribute("value")  # noqa: E731
        page.until(lambda: chosen() == "blend")
        page.write("scenes[1].transition.blend", "4")
        holds(page, folder, "transition: {blend: 4}")
        page.field("scenes[1].transition").send_keys("w")
        page.until(lambda: re.search("transition: cut$", read(folder), re.MULTILINE))
        page.until(lambda: chosen() == "cut")
        assert page.js(drop, "#player", "x.png") is True
        for name, said in (("x.png", "is no image"), ("x.avif", "PNG")):
            assert page.js(drop, ".drop", name) is True
            page.until(lambda said=said: said in page.one("#notice").text)
        assert len(page.all(".card")) == 2 and os.listdir(folder).count("x.png") == 0
        names = "return [...document.querySelectorAll('.head b')].every((name) => name.scrollWidth <= name.clientWidth)"
        assert page.js(names)  # no tag takes their place


def test_the_pictures_on_the_cards_are_of_the_film_that_is_there(page, folder):  # noqa: F811
    colours = """const done = arguments[0], pen = document.createElement("canvas").getContext("2d");
        const urls = [...document.querySelectorAll(".picture")].map((one) => one.style.backgroundImage.slice(5, -2));
        if (!urls.every((url) => url.startsWith("blob:"))) done(null);
        else Promise.all(urls.map(async (src) => {
          const image = Object.assign(new Image(), { src });
          await image.decode();
          pen.drawImage(image, 0, 0);
          return [...pen.getImageData(5, 5, 1, 1).data].join();
        })).then(done)"""
    pictures = lambda: page.driver.execute_async_script(colours)  # noqa: E731
    with studio(folder) as it:
        page.at(it, "/#story")
        page.click("#render")
        first = page.until(pictures, "pictures of the film")
        page.write("scenes[0].prompt", "something else")
        page.click("#render")
        page.until(lambda: (now := pictures()) and now != first, "pictures of the next film", 20)


def test_an_image_is_dropped_on_its_scene_and_a_message_goes_with_its_reason(page, folder, png):  # noqa: F811
    drop = """const dropped = new DataTransfer();
        dropped.items.add(new File([new Uint8Array(arguments[1])], arguments[0]));
        document.querySelector(".card:nth-child(2) .stage").dispatchEvent(
            new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: dropped }))"""
    with studio(folder, shut=True) as it:
        page.at(it, "/#story")
        shown(page, "story")
        page.js(drop, "wrong.png", [1, 2])
        page.until(lambda: "wrong.png" in page.one("#notice").text, "what is wrong with it")
        page.js(drop, "hero.png", list(png))
        holds(page, folder, "image: hero.png")
        page.until(lambda: not page.one("#notice").text, "that it is told no more")
        picture = lambda: page.one(".card:nth-child(2) .picture").get_attribute("style")  # noqa: E731
        page.until(lambda: "hero.png" in picture() and page.all("#render"), "the image")
        (folder / "story.yaml").rename(folder / "story.off")
        page.until(lambda: "is gone" in page.one("#notice").text, "that it is gone")
        (folder / "story.off").rename(folder / "story.yaml")
        page.until(lambda: not page.one("#notice").text, "that it is back")
        page.driver.get_log("browser")  # of what was asked of a file that was gone
