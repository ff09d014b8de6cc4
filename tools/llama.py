"""A small language model as Llama is built: RMSNorm, rotary places, shared keys, SwiGLU."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from networks import Batch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from razorlight import Role, register


class Attention(nn.Module):
    """Causal attention with rotary places, in which several heads share their keys and values.

    Args:
        width: entries of a token.
        heads: the heads of queries.
        shared: so many heads share a head of keys and values.
    """

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.size = width // heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width // shared, bias=False)
        self.value = nn.Linear(width, width // shared, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Attend among tokens ``(batch, tokens, width)``, at angles ``(tokens, size)``."""
        heads = (m(x).unflatten(2, (-1, self.size)) for m in (self.query, self.key, self.value))
        query, key, value = (head.transpose(1, 2) for head in heads)
        query, key = (head * cosines + _turned(head) * sines for head in (query, key))
        query, key = query.to(value.dtype), key.to(value.dtype)
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return self.out(out.transpose(1, 2).flatten(2))


def _turned(x: Tensor) -> Tensor:
    """Each pair of entries, a half of a head apart, turned by a right angle."""
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


class SwiGLU(nn.Module):
    """An MLP whose hidden entries are multiplied by a gate."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """``(..., width)``, as ``x``."""
        return self.down(self.act(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention and MLP, each after a norm and beside a way around."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.RMSNorm(width), Attention(width, heads, shared=2)
        self.norm2, self.mlp = nn.RMSNorm(width), SwiGLU(width, width * 8 // 3)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """``(batch, tokens, width)``, as ``x``."""
        x = x + self.attention(self.norm1(x), cosines, sines)
        return x + self.mlp(self.norm2(x))


class Llama(nn.Module):
    """Predicts the next token.

    Args:
        words: the number of different tokens.
        width: entries of a token.
        depth: the number of blocks.
        heads: the heads of each attention.
    """

    def __init__(self, words: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.size, self.checkpoints = width // heads, False
        self.embedding = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, words, bias=False)

    def set_grad_checkpointing(self) -> None:
        """Run each block again in backward. The networks of timm have a method of this name."""
        self.checkpoints = True

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits ``(batch, words, tokens)`` of the words that follow ``(batch, tokens)``."""
        x = self.embedding(tokens)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        rates = 10_000 ** -torch.arange(0, 1, 2 / self.size, device=tokens.device)
        angles = torch.outer(places, rates).repeat(1, 2)
        cosines, sines = angles.cos(), angles.sin()
        for block in self.blocks:
            if self.checkpoints:
                x = checkpoint(block, x, cosines, sines, use_reentrant=False)
            else:
                x = block(x, cosines, sines)
        return self.head(self.norm(x)).transpose(1, 2)


register(Attention, functions=[F.scaled_dot_product_attention], role=Role.OPERANDS)
register(SwiGLU, functions=[torch.mul], role=Role.OPERANDS)


def language(batch: int, tokens: int, small: bool, device: str) -> tuple[Llama, Iterator[Batch]]:
    """A network as large as a ViT-B, or a tiny one, and batches of random texts.

    Args:
        batch: the number of texts.
        tokens: the number of tokens of a text.
        small: Whether the network is tiny.
        device: cuda or cpu.
    """
    torch.manual_seed(0)
    words, width, depth, heads = (64, 64, 2, 4) if small else (8192, 768, 12, 12)
    model = Llama(words, width, depth, heads).to(device)

    def drawn() -> Iterator[Batch]:
        while True:
            text = torch.randint(words, (batch, tokens + 1), device=device)
            yield text[:, :-1], text[:, 1:]

    return model, drawn()
