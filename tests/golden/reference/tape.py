"""Reverse-mode differentiation in float64 numpy: as little as the models here need."""

import numpy as np


class Value:
    """An array and, once backward() has run, the derivative of a scalar with respect to it."""

    def __init__(self, data, parents=()):
        self.data = np.asarray(data, dtype=np.float64)
        self.parents = parents  # (Value, function from the derivative of this to that of it)
        self.grad = None

    @property
    def shape(self):
        return self.data.shape

    def __add__(self, other):
        other = value(other)
        return Value(self.data + other.data,
                     ((self, lambda d: shrink(d, self.shape)),
                      (other, lambda d: shrink(d, other.shape))))

    def __mul__(self, other):
        other = value(other)
        return Value(self.data * other.data,
                     ((self, lambda d: shrink(d * other.data, self.shape)),
                      (other, lambda d: shrink(d * self.data, other.shape))))

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + -value(other)

    def __getitem__(self, index):
        def back(d):
            out = np.zeros(self.shape)
            np.add.at(out, index, d)
            return out

        return Value(self.data[index], ((self, back),))

    def reshape(self, *shape):
        return Value(self.data.reshape(shape), ((self, lambda d: d.reshape(self.shape)),))

    def mean(self, axis=None):
        """Over one axis, which stays with size 1, or over everything."""
        count = self.data.size if axis is None else self.shape[axis]
        return Value(self.data.mean(axis=axis, keepdims=axis is not None),
                     ((self, lambda d: np.broadcast_to(d, self.shape) / count),))

    def sum(self):
        return Value(self.data.sum(), ((self, lambda d: np.broadcast_to(d, self.shape)),))

    def backward(self):
        """Adds the derivatives of this scalar to .grad of everything that it came from."""
        order, seen = [], set()

        def visit(node):
            stack = [(node, iter(node.parents))]
            seen.add(id(node))
            while stack:
                top, rest = stack[-1]
                for parent, _ in rest:
                    if id(parent) not in seen:
                        seen.add(id(parent))
                        stack.append((parent, iter(parent.parents)))
                        break
                else:
                    order.append(top)
                    stack.pop()

        visit(self)
        self.grad = np.ones(self.shape)
        for node in reversed(order):
            if node.grad is None:
                continue
            for parent, back in node.parents:
                d = back(node.grad)
                parent.grad = d if parent.grad is None else parent.grad + d


def value(x):
    return x if isinstance(x, Value) else Value(x)


def shrink(d, shape):
    """The derivative of what was broadcast from `shape`."""
    d = d.sum(axis=tuple(range(d.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and d.shape[i] != 1)
    return d.sum(axis=axes, keepdims=True) if axes else d


def einsum(form, a, b):
    """numpy.einsum of two operands in which no index stands in one of the three places alone."""
    ins, out = form.split("->")
    left, right = ins.split(",")
    return Value(np.einsum(form, a.data, b.data),
                 ((a, lambda d: np.einsum(f"{out},{right}->{left}", d, b.data)),
                  (b, lambda d: np.einsum(f"{out},{left}->{right}", d, a.data))))


def linear(x, weight):
    """x [T, in], weight [out, in]."""
    return Value(x.data @ weight.data.T,
                 ((x, lambda d: d @ weight.data), (weight, lambda d: d.T @ x.data)))


def concatenate(parts, axis):
    starts = np.cumsum([0] + [p.shape[axis] for p in parts])

    def back(i):
        return lambda d: np.take(d, range(starts[i], starts[i + 1]), axis=axis)

    return Value(np.concatenate([p.data for p in parts], axis=axis),
                 tuple((p, back(i)) for i, p in enumerate(parts)))


def sigmoid(x):
    y = 1 / (1 + np.exp(-x.data))
    return Value(y, ((x, lambda d: d * y * (1 - y)),))


def inverse_sqrt(x):
    y = x.data ** -0.5
    return Value(y, ((x, lambda d: -0.5 * d * y ** 3),))


def softmax(x):
    """Over the last axis; -inf has no weight."""
    y = np.exp(x.data - x.data.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return Value(y, ((x, lambda d: y * (d - (d * y).sum(axis=-1, keepdims=True))),))


def log_softmax(x):
    shifted = x.data - x.data.max(axis=-1, keepdims=True)
    y = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return Value(y, ((x, lambda d: d - np.exp(y) * d.sum(axis=-1, keepdims=True)),))
