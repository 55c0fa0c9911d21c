"""Muon for the matrices inside the blocks: momentum, then the nearest orthogonal matrix.

The step of a matrix has a root mean square of 0.2 x the learning rate, as AdamW's has about, so that
both optimizers can share a schedule (Liu et al. 2025, "Muon is scalable for LLM training").
"""

import torch

# Newton-Schulz coefficients of Jordan et al. 2024.
A, B, C = 3.4445, -4.7750, 2.0315


def orthogonalise(g, steps=5):
    """g [N, rows, columns] -> about U V^T of each."""
    x = g.bfloat16() if g.is_cuda else g.float()  # bf16 products are slow on most CPUs
    turned = x.shape[-2] > x.shape[-1]
    x = x.mT if turned else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x.mT if turned else x


class Muon(torch.optim.Optimizer):
    """`groups_of` maps a parameter to how many independent matrices its rows hold (stacked experts
    have their own dimension and need no entry)."""

    def __init__(self, parameters, lr, groups_of=None, momentum=0.95, weight_decay=0.05):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.groups_of = groups_of or {}

    def matrices(self, p, tensor):
        groups = self.groups_of.get(p, 1)
        return tensor.reshape(-1 if tensor.ndim == 3 else groups, tensor.shape[-2] // groups, tensor.shape[-1])

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            waiting = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                step = self.matrices(p, p.grad.lerp(state["momentum"], group["momentum"]))
                waiting.setdefault(step.shape[1:], []).append((p, step))
            for shape, items in waiting.items():
                steps = orthogonalise(torch.cat([step for _, step in items]))
                scale = 0.2 * max(shape) ** 0.5 * group["lr"]
                at = 0
                for p, step in items:
                    own = steps[at : at + step.shape[0]].reshape(p.shape)
                    at += step.shape[0]
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(own, alpha=-scale)
