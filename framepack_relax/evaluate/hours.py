"""What a sweep will take, told before its first film: passes by count, hours by what films in its folder took."""

from collections.abc import Callable, Mapping, Sequence

from ..planning.renderplan import RenderPlan
from ..rendering.mark import Note
from .statistics import Row

FEW = 5  # films that tell the hours of the others: the first takes longer


def foretelling(
    plans: Mapping[str, RenderPlan], there: Sequence[Row], on_film: Callable[[Row, int], None], on_note: Note
) -> Callable[[Row, int], None]:
    """Tells what is left of these films, by their keys, and gives an `on_film` that tells it once more after a FEW
    where none was `there` to tell the hours by."""
    known, made = {row["key"] for row in there}, list(there)
    few = 0 if there else FEW
    left = [plan for key, plan in plans.items() if key not in known]
    on_note(foretold(left, made))

    def told(row: Row, films: int) -> None:
        if len(made) < few:
            made.append(row)
            if len(made) == few < films:
                on_note(foretold(left[few:], made))
        on_film(row, films)

    return told


def foretold(plans: Sequence[RenderPlan], rows: Sequence[Row]) -> str:
    """Of the films that are left; `rows` are those that were made, on any settings.

    The passes are those of the arms' scenes, to which all the time of a film is counted: the calm before is shared.
    """
    if not plans:
        return "all films are there"
    counts = [plan.sections[index].passes for plan in plans for index in plan.scenes[-1].sections]
    least, most = (sum(bound) for bound in zip(*counts, strict=True))
    said = f"{len(plans)} films are left, {least}{f'..{most}' if most > least else ''} passes"
    timed = [(row["wall"], row["forwards"]) for row in rows if row.get("wall") and row.get("forwards")]
    if not timed:
        return f"{said}; the hours are told after the first {FEW}"
    pace = sum(wall for wall, _ in timed) / sum(passes for _, passes in timed)
    hours = " to ".join(dict.fromkeys(f"{bound * pace / 3600:.1f}" for bound in (least, most)))
    return f"{said}: about {hours} h one after another, at the {pace:.3f} s a pass of {len(timed)} films that are there"
