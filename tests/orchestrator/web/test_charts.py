import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.web.charts import Series, bar_chart, heat_map, line_chart, round_ticks

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@given(numbers, st.floats(0.001, 1e6))
def test_ticks_cover_the_interval_with_few_steps(low: float, span: float) -> None:
    ticks = round_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6 and ticks[-1] >= low + span - 1e-6 * max(1, abs(low) + span)
    assert 2 <= len(ticks) <= 9


def test_a_line_goes_through_its_points_from_left_to_right() -> None:
    svg = ET.fromstring(
        line_chart(
            [Series(name="a", points=[(0, 3.0), (5, 2.0), (10, 1.0)], css_class="one")], x_label="x", y_label="y"
        )
    )
    line = svg.find("{*}polyline")
    assert line is not None
    xs, ys = zip(*(map(float, point.split(",")) for point in line.attrib["points"].split()), strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # a falling loss falls on the page, where y grows downwards


def test_the_largest_cell_is_the_darkest_and_zero_is_empty() -> None:
    svg = ET.fromstring(heat_map([[0.0, 0.1], [0.2, 0.4]], columns=[0, 10], x_label="step", y_label="layer"))
    cells = [float(cell.attrib["fill-opacity"]) for cell in svg.findall("{*}rect")][:4]
    assert cells == [0.0, 0.25, 0.5, 1.0]


def test_bars_are_as_long_as_their_values() -> None:
    svg = ET.fromstring(bar_chart([("a", 2.0, "right"), ("b", 1.0, "base")], unit="nats"))
    widths = [float(bar.attrib["width"]) for bar in svg.findall("{*}rect")]
    assert widths[0] == 2 * widths[1]
