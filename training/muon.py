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
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters]
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta = [self.state[p]["momentum"] for p in parameters]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            waiting = {}
            for p, step in zip(parameters, torch._foreach_lerp(gradients, momenta, group["momentum"])):
                step = self.matrices(p, step)
                waiting.setdefault(tuple(step.shape[1:]), []).append((p, step))
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for shape, items in waiting.items():
                steps = orthogonalise(torch.cat([step for _, step in items])).float()
                own = torch.split(steps, [step.shape[0] for _, step in items])
                targets = [p for p, _ in items]
                torch._foreach_add_(targets, [one.reshape(p.shape) for p, one in zip(targets, own)], alpha=-0.2 * max(shape) ** 0.5 * group["lr"])
