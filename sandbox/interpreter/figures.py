"""What the SDKs call `chart` and `data` of a result: the numbers of a matplotlib figure, the columns of a pandas DataFrame. Run in
the kernel before its first cell. Neither library is imported here: an object of theirs exists only when the code has done that.

Whatever cannot be described (a kind of plot that is not known, more than VALUES_MAX values, artists that were changed by hand into
something else) is left out, and the result is its picture or table alone.
"""
import datetime
import decimal
import math
import numbers
import re
import sys
import warnings

from IPython import get_ipython
from IPython.core.formatters import BaseFormatter
from traitlets import ObjectName, Unicode

VALUES_MAX = 100_000
UNIT = re.compile(r"\(([^()]+)\)\s*$|\[([^\[\]]+)\]\s*$")


class TooLarge(Exception):
    pass


def scalar(value):
    """As JSON can say it; what is no number there is None."""
    if type(value).__name__ == "datetime64":  # in nanoseconds, its item() would be a number
        value = value.astype("datetime64[us]").item()
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item() if getattr(value, "size", 1) == 1 else str(value)
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat() if value == value else None  # NaT is not equal to itself
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, (numbers.Real, decimal.Decimal)):
        return float(value) if math.isfinite(value) else None
    return None if value != value else str(value)


class Axis:
    """One of the two directions of a plot."""

    def __init__(self, axis, scale):
        self.axis = axis
        converter = getattr(axis, "get_converter", lambda: getattr(axis, "converter", None))()
        kind = type(converter).__name__ if converter is not None else ""
        self.scale = "categorical" if "Category" in kind else "datetime" if "Date" in kind else scale
        units = getattr(axis, "units", None)
        self.names = {number: name for name, number in getattr(units, "_mapping", {}).items()} if self.scale == "categorical" else {}

    def value(self, number):
        """Of what is drawn at this number."""
        if self.scale == "datetime" and isinstance(number, numbers.Real):
            from matplotlib.dates import num2date
            return num2date(number).replace(tzinfo=None).isoformat()
        return scalar(self.names.get(number, number))

    def ticks(self):
        return [self.value(scalar(tick)) for tick in self.axis.get_ticklocs()]

    def tick_labels(self):
        return [label.get_text() for label in self.axis.get_ticklabels()]

    def label_at(self, number):
        """What somebody wrote at the tick next to it (bars of a group share one), else the value."""
        if "Fixed" in type(self.axis.get_major_locator()).__name__ or self.names:
            ticks = sorted(zip(map(float, self.axis.get_ticklocs()), self.tick_labels()))
            gap = min((after[0] - before[0] for before, after in zip(ticks, ticks[1:])), default=1.0)
            distance, label = min(((abs(tick - number), label) for tick, label in ticks), default=(gap, ""))
            if label and distance < gap / 2:
                return label
        return str(self.value(scalar(number)))


def unit_of(label):
    match = UNIT.search(label)
    return next(filter(None, match.groups()), None) if match else None


def axes_of(ax):
    return Axis(ax.xaxis, ax.get_xscale()), Axis(ax.yaxis, ax.get_yscale())


def name_of(artist):
    """What its maker called it; matplotlib's own names begin with an underscore."""
    label = str(artist.get_label() or "")
    return "" if label.startswith("_") else label


def pairs(axes, xs, ys):
    return [[axis.value(scalar(value)) for axis, value in zip(axes, pair)] for pair in zip(xs, ys)]


def lines(ax, axes):
    # Such as axhline() and grids have no data of their own: their points are parts of the axes.
    own = [line for line in ax.get_lines() if line.get_transform() == ax.transData]
    return [{"label": name_of(line), "points": pairs(axes, line.get_xdata(), line.get_ydata())} for line in own]


def scatters(ax, axes):
    from matplotlib.collections import PathCollection
    found = [collection for collection in ax.collections if isinstance(collection, PathCollection) and len(collection.get_offsets())]
    return [{"label": name_of(one), "points": pairs(axes, *zip(*one.get_offsets().tolist()))} for one in found]


def bars(ax, axes):
    from matplotlib.container import BarContainer
    elements = []
    for container in ax.containers:
        if not isinstance(container, BarContainer):
            continue
        upright = getattr(container, "orientation", "vertical") != "horizontal"
        for bar in container:
            middle = bar.get_x() + bar.get_width() / 2 if upright else bar.get_y() + bar.get_height() / 2
            elements.append({"label": axes[0 if upright else 1].label_at(middle), "group": name_of(container),
                             "value": scalar(bar.get_height() if upright else bar.get_width())})
    return elements


def wedges(ax, axes):
    from matplotlib.patches import Wedge
    return [{"label": name_of(patch), "angle": scalar(patch.theta2 - patch.theta1), "radius": scalar(patch.r)}
            for patch in ax.patches if isinstance(patch, Wedge)]


def outline(artist):
    """(least x, greatest x, least y, greatest y) of a rectangle, notched or not, that is a line or a path, or None."""
    points = [tuple(map(float, point)) for point in (artist.get_xydata() if hasattr(artist, "get_xydata") else artist.get_path().vertices)]
    corners = [points[at] for at in ((0, 1, 5, 6) if len(points) > 10 and points[0] == points[10] else range(min(4, len(points))))]
    xs, ys = sorted({x for x, _ in corners}), sorted({y for _, y in corners})
    closed = len(points) > 4 and points[0] in (points[4], points[-1], points[min(10, len(points) - 1)])
    # A box of equal quartiles has no height.
    return (xs[0], xs[-1], ys[0], ys[-1]) if closed and len(corners) == 4 and 2 < len(xs) + len(ys) < 5 else None


def box(rectangle, segments, marks, upright):
    """The five numbers of a box, from what is drawn at its middle: two whiskers that begin at its ends, a line across it."""
    low, high, first, third = rectangle if upright else rectangle[2:] + rectangle[:2]
    middle, whiskers, median = (low + high) / 2, {}, None
    for (x0, y0), (x1, y1) in (segment if upright else [(y, x) for x, y in segment] for segment in segments):
        if x0 == x1 == middle and y0 in (first, third):
            whiskers[y0] = y1
        elif y0 == y1 and low <= min(x0, x1) and max(x0, x1) <= high and first <= y0 <= third:
            median = y0
    if median is None or len(whiskers) != len({first, third}):
        return None
    there = [point if upright else point[::-1] for points in marks for point in points]
    outliers = [scalar(y) for x, y in there if abs(x - middle) < 1e-9]
    return middle, {"min": scalar(whiskers[first]), "first_quartile": scalar(first), "median": scalar(median),
                    "third_quartile": scalar(third), "max": scalar(whiskers[third]), "outliers": outliers}


def boxes(ax, axes):
    from matplotlib import rcParams
    from matplotlib.patches import PathPatch
    drawn = [line for line in ax.get_lines() if line.get_linestyle() != "None"]
    rectangles = [found for found in map(outline, drawn + [p for p in ax.patches if isinstance(p, PathPatch)]) if found]
    segments = [[tuple(map(float, point)) for point in line.get_xydata()] for line in drawn if len(line.get_xydata()) == 2]
    mean = rcParams["boxplot.meanprops.marker"]
    marks = [[tuple(map(float, point)) for point in line.get_xydata()]
             for line in ax.get_lines() if line.get_linestyle() == "None" and line.get_marker() != mean]
    for upright in (True, False):
        found = [box(rectangle, segments, marks, upright) for rectangle in rectangles]
        if rectangles and all(found):
            return [{"label": axes[0 if upright else 1].label_at(middle), **numbers_} for middle, numbers_ in found]
    return []


# In this order: a bar chart may have lines (of errors), and a box is drawn with nothing else.
KINDS = (("pie", wedges), ("box_and_whisker", boxes), ("bar", bars), ("line", lines), ("scatter", scatters))


def describe(ax):
    axes = axes_of(ax)
    kinds = () if ax.name == "3d" else KINDS  # of which only a projection would be told
    kind, elements = next(((kind, elements) for kind, read in kinds if (elements := read(ax, axes))), ("unknown", []))
    chart = {"type": kind, "title": ax.get_title(), "elements": elements}
    if kind in ("pie", "unknown"):
        return chart
    for name, label in (("x", ax.get_xlabel()), ("y", ax.get_ylabel())):
        chart.update({f"{name}_label": label or None, f"{name}_unit": unit_of(label)})
    if kind in ("line", "scatter"):
        for name, axis in zip("xy", axes):
            chart.update({f"{name}_ticks": axis.ticks(), f"{name}_tick_labels": axis.tick_labels(), f"{name}_scale": axis.scale})
    return chart


def size_of(ax):
    return sum(len(line.get_xdata(orig=False)) for line in ax.get_lines()) + len(ax.patches) + \
        sum(len(collection.get_offsets()) for collection in ax.collections)


def chart_of(figure):
    shown = [ax for ax in figure.get_axes() if ax.get_label() != "<colorbar>"]
    if not shown:
        return None
    if sum(map(size_of, shown)) > VALUES_MAX:
        raise TooLarge
    charts = [describe(ax) for ax in shown]
    if len(charts) == 1:
        return charts[0]
    return {"type": "superchart", "title": figure._suptitle.get_text() if figure._suptitle else "", "elements": charts}


def columns_of(frame):
    if frame.size > VALUES_MAX:
        raise TooLarge
    return {str(name): [scalar(value) for value in frame.iloc[:, at].tolist()] for at, name in enumerate(frame.columns)}


class OfLibrary(BaseFormatter):
    """Of objects of one class of a library, or that say it themselves by the method."""

    def __init__(self, module, name, make, **options):
        super().__init__(**options)
        self.module, self.class_name, self.make = module, name, make

    def __call__(self, obj):
        kind = getattr(sys.modules.get(self.module), self.class_name, None)
        if kind is None or not isinstance(obj, kind):
            return super().__call__(obj)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.make(obj)
        except Exception:
            return None


class Chart(OfLibrary):
    format_type = Unicode("e2b/chart")
    print_method = ObjectName("_repr_e2b_chart_")
    _return_type = dict


class Data(OfLibrary):
    format_type = Unicode("e2b/data")
    print_method = ObjectName("_repr_e2b_data_")
    _return_type = dict


def install(shell):
    display = shell.display_formatter
    for formatter in (Chart("matplotlib.figure", "Figure", chart_of, parent=display), Data("pandas", "DataFrame", columns_of, parent=display)):
        display.formatters[formatter.format_type] = formatter


install(get_ipython())
