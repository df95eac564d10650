"""What takes a section from one noise level to the next: diffusers' schedulers, one of them as FramePack runs it.

C latent channels, T latent frames, h and w latent height and width
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

from ..backend import Solve
from ..hunyuan_video.backend import euler, on_table


def make_solver(name: str, sigmas: Sequence[float], dtype: torch.dtype = torch.float32) -> Solve:
    """A section's solver, (index of sigma, velocity, x) -> x at the next sigma, all [1, C, T, h, w] float32.

    `unipc` is FramePack's, `euler` that of HunyuanVideoFramepackPipeline; both take the shifted table [steps] as it
    is. `dtype` is the transformer's, in which it saw x.
    """
    return euler(sigmas) if name == "euler" else on_table(FramePackUniPC.of(len(sigmas), dtype), sigmas)


class FramePackUniPC(UniPCMultistepScheduler):
    """diffusers' UniPC with what FramePack does otherwise: to the bit the solver of its programs.

    lambda is -log sigma (alpha is 1), the order stays 3 to the end, the last step gives the last x0, and x0 is taken
    from x as the transformer saw it. Source: what diffusers_helper/k_diffusion of lllyasviel/FramePack computes.
    """

    seen: torch.dtype = torch.float32

    @classmethod
    def of(cls, steps: int, seen: torch.dtype) -> "FramePackUniPC":
        made = cls(
            solver_order=max(1, min(3, steps - 1)), solver_type="bh1", prediction_type="flow_prediction",
            use_flow_sigmas=True, flow_shift=1.0, lower_order_final=False,
        )  # fmt: skip
        made.seen = seen
        return made

    def _sigma_to_alpha_sigma_t(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(sigma), sigma

    def convert_model_output(self, model_output: Tensor, *args: Any, sample: Tensor, **kwargs: Any) -> Tensor:
        return sample.to(self.seen).float() - self.sigmas[self.step_index] * model_output

    def multistep_uni_p_bh_update(self, model_output: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.sigmas[self.step_index + 1] == 0:
            return self.model_outputs[-1]
        return super().multistep_uni_p_bh_update(model_output, *args, **kwargs)
