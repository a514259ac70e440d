import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from foreact.data.page import Clip, Page
from foreact.data.plot import bar_plot, histogram, line_plot
from foreact.data.video import write_video
from foreact.envs.errors import UserError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

FRAMES = np.zeros((2, 16, 16, 3), np.uint8)
VOID = {"meta", "img", "link", "br"}


class Reader(HTMLParser):
    """Checks that tags nest and gathers what a page refers to."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.sources, self.tags, self.words = [], [], [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def test_a_page_with_everything_is_well_formed_and_fetches_nothing(tmp_path):
    video = write_video(tmp_path / "videos" / "a b#1.mp4", FRAMES, 10)
    page = (
        Page("A & <b>", "sub")
        .section("One")
        .heading("small")
        .text("first\n\nsecond")
        .code("foreact eval tasks=[push] > out")
        .facts([("episodes", 20)])
        .table(["task", "success"], [["<push>", 0.91666], ["reach", None]], caption="rates")
        .figure(line_plot({"loss": [3.0, 2.0, 1.0]}), "curve")
        .figure(np.zeros((4, 4, 3), np.uint8))
        .figures([(histogram(np.arange(5)), "h"), (bar_plot({"push": 0.5}), "b")])
        .videos([Clip(video, "good one", True), Clip(video, "bad one", False)])
    )
    path = page.write(tmp_path / "index.html")
    html = path.read_text(encoding="utf-8")
    reader = Reader(html)
    assert "http" not in html
    assert "A & <b>" in reader.words
    assert "<push>" in reader.words
    assert "0.917" in reader.words
    assert reader.tags.count("video") == 2
    assert reader.sources[1:] == ["videos/a%20b%231.mp4"] * 2
    assert reader.sources[0].startswith("data:image/png;base64,")


def test_links_are_relative_to_the_page_and_small_videos_can_be_embedded(tmp_path):
    video = write_video(tmp_path / "videos" / "a.mp4", FRAMES, 10)
    assert '"../videos/a.mp4"' in Page("t").video(video).write(tmp_path / "pages" / "index.html").read_text(
        encoding="utf-8"
    )
    embedded = Page("t", embed_below=10**6).video(video).write(tmp_path / "one.html").read_text(encoding="utf-8")
    assert "data:video/mp4;base64," in embedded


def test_a_matplotlib_figure_and_a_file_become_pictures(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    figure.savefig(tmp_path / "a.png")
    html = (
        Page("t")
        .figure(figure, "drawn")
        .figure(tmp_path / "a.png")
        .write(tmp_path / "i.html")
        .read_text(encoding="utf-8")
    )
    assert html.count("data:image/png;base64,") == 2


def test_missing_files_are_user_errors_and_leave_no_page(tmp_path):
    with pytest.raises(UserError, match="no video at"):
        Page("t").video(tmp_path / "absent.mp4").write(tmp_path / "index.html")
    with pytest.raises(UserError, match="no picture at"):
        Page("t").figure(tmp_path / "absent.png")
    assert not list(tmp_path.iterdir())


_values = hnp.arrays(
    np.float64, st.integers(0, 50), elements=st.floats(-1e12, 1e12) | st.just(np.nan) | st.just(np.inf)
)


@settings(deadline=None, max_examples=50)
@given(_values, st.booleans())
def test_any_values_give_valid_drawings(values, log_y):
    for figure in (line_plot({"a<b": values}, log_y=log_y, xlabel="x"), histogram(values)):
        ElementTree.fromstring(figure)
        assert "nan" not in figure
        assert "inf" not in figure


def test_thinning_keeps_spikes():
    values = np.zeros(100_000)
    values[54_321] = 1.0
    figure = line_plot({"a": values})
    assert len(figure) < 30_000
    top = min(float(point.split(" ")[1]) for point in figure.split('d="M')[-1].split('"')[0].split("L"))
    assert top < 20  # the spike reaches the top of the picture


def test_a_legend_names_several_lines_and_one_line_needs_none():
    assert "legend" not in line_plot({"a": [1, 2]})
    assert ">b&lt;<" in line_plot({"a": [1, 2], "b<": [1, 2]})


def test_bars_show_intervals():
    figure = bar_plot({"push": 0.5, "reach": 1.0}, intervals={"push": (0.3, 0.7)})
    ElementTree.fromstring(figure)
    assert figure.count("whisker") == 1
