"""The losses of the stages (docs/math/hypenet.md 2.2) and AdamW, in float64."""

import math

import numpy as np

import tape
from tape import Value


def align_losses(student, teacher, rows):
    """Stage 1: the mean squared error of each layer's mixer, [layers] Values."""
    sums = [Value(0.0) for _ in teacher.mixers]
    for ids in rows:
        positions = np.arange(len(ids))
        stream = teacher.embed(ids)
        for layer in range(len(teacher.mixers)):
            x = Value(teacher.mixer_input(layer, stream).data)
            target = Value(teacher.mixer(layer, x, positions).data)
            error = student.mixer(layer, x, positions) - target
            sums[layer] = sums[layer] + (error * error).mean()
            stream = stream + target
            stream = Value((stream + teacher.mlp(layer, stream)).data)
    return [s * (1 / len(rows)) for s in sums]


def mean(values):
    total = Value(0.0)
    for v in values:
        total = total + v
    return total * (1 / len(values))


def kl_loss(student, teacher, rows):
    """Stage 2: of the student from the teacher, mean over all tokens."""
    losses = []
    for ids in rows:
        known = tape.log_softmax(teacher.run(ids)[0]).data
        own = tape.log_softmax(student.run(ids)[0])
        losses.append(((Value(known) - own) * np.exp(known)).sum() * (1 / len(ids)))
    return mean(losses)


def cross_entropy(model, rows):
    """Stage 3: of the next token, mean over all predictions."""
    losses = []
    for ids in rows:
        own = tape.log_softmax(model.run(ids)[0])
        losses.append(-own[np.arange(len(ids) - 1), np.asarray(ids[1:])].mean())
    return mean(losses)


def gradients(loss, weights):
    for weight in weights.values():
        weight.grad = None
    loss.backward()
    return {name: w.grad for name, w in weights.items() if w.grad is not None}


def norm(grads):
    return math.sqrt(sum(float((g * g).sum()) for g in grads.values()))


class AdamW:
    """Without decay; gradients are clipped to a norm of 1."""

    def __init__(self, weights, beta1=0.9, beta2=0.95, eps=1e-8):
        self.weights, self.beta1, self.beta2, self.eps = weights, beta1, beta2, eps
        self.m = {n: np.zeros(w.shape) for n, w in weights.items()}
        self.v = {n: np.zeros(w.shape) for n, w in weights.items()}
        self.steps = 0

    def step(self, grads, rate):
        """Returns the norm before clipping."""
        self.steps += 1
        size = norm(grads)
        for name, g in grads.items():
            g = g * min(1.0, 1 / (size + 1e-6))
            self.m[name] = self.beta1 * self.m[name] + (1 - self.beta1) * g
            self.v[name] = self.beta2 * self.v[name] + (1 - self.beta2) * g * g
            m = self.m[name] / (1 - self.beta1 ** self.steps)
            v = self.v[name] / (1 - self.beta2 ** self.steps)
            self.weights[name].data = self.weights[name].data - rate * m / (np.sqrt(v) + self.eps)
        return size
