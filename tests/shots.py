"""A shot's sections one after the other, with noise and conditions of the test's own."""

from framepack_relax.families.backend import Given
from framepack_relax.sampling.section import sample


def sample_shot(model, plan, *, start, prompt, negative, noise):
    """What `sample` gives of each section of a film's first shot, by place; `noise` gives a section's."""
    made = {}
    for index in plan.shots[0].sections:
        section = plan.sections[index]
        drawn = noise(section)
        given = Given(
            noise=drawn, context=section.context, steps=section.steps, start=start, prompt=prompt, negative=negative,
            past={place: made[place].latents for place in section.context.needs}, options=plan.options,
        )  # fmt: skip
        inputs = model.begin(given)
        made[section.place] = sample(model, inputs, section.steps, drawn, sampler=plan.sampler)
    return made
