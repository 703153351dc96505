"""What a verifier without error reads in an image."""

from imgalign.storybook.scenes import Scene
from imgalign.storybook.verifier import Reading, Seen


def reading_of(scene: Scene) -> Reading:
    """Every object as it was drawn, without doubt."""
    items = tuple(
        Seen(
            kind=item.kind,
            colour=item.colour,
            x=item.x,
            y=item.y,
            size=item.size,
            confidence=1.0,
            kind_probability=1.0,
            colour_probability=1.0,
        )
        for item in scene.items
    )
    return Reading(
        items=items,
        setting=scene.setting,
        setting_probability=1.0,
        readable_probability=1.0,
        unsure=False,
    )
