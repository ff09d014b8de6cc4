"""Roles: which value a layer reads in backward, and so which codecs may store the value."""

from enum import Enum

from razorlight.codecs import Codec, Dense, Mask, Slope, Uniform


class Role(Enum):
    """Which value a layer reads in backward, and so which codecs may store the value.

    The string of a role is the name of its field in a :class:`razorlight.Recipe`, if it has one.

    Example:
        >>> from razorlight import Role, Slope, Uniform
        >>> Role.SMOOTH_ACTIVATION.accepts(Slope(3)), Role.NORM.accepts(Slope(3))
        (True, False)
    """

    NORM = "norm"
    """The input of a norm of tokens, normalised where records are shared."""
    CHANNEL_NORM = "channel_norm"
    """The input of a norm of maps, normalised where records are shared."""
    PRODUCT = "product"
    """The input of a product with a weight."""
    OPERANDS = "operands"
    """Operands of products of activations: queries, keys, values, probabilities, gated units."""
    SMOOTH_ACTIVATION = "smooth_activation"
    """The input of a curved activation. It is not pruned, since the slope at 0 is not 0."""
    KINKED_ACTIVATION = "kinked_activation"
    """The input of a curved activation whose slope jumps at 0: the signs are preserved."""
    BOUNDED_ACTIVATION = "bounded_activation"
    """The output of a curved activation that lies between two bounds, where the slope is 0."""
    RECTIFIER = "rectifier"
    """The gate of a rectifier: exact, in bits, or read from the output."""
    MASK = "mask"
    """The gate of a dropout, or the places of maxima in their windows: exact, in bits."""
    LOSS = "loss"
    """The logits of a loss. The loss runs again in backward and must give the same then."""
    BLOCK = "block"
    """The input of a whole block, which runs again in backward."""
    VIEW = "view"
    """Nothing: the layer moves entries, and carries records from its input to its output."""

    def accepts(self, codec: Codec) -> bool:
        """Whether ``codec`` may store the value that a layer of this role reads."""
        if self in _ANY_VALUE:  # a user's own codec is accepted too
            return not isinstance(codec, Mask | Slope)
        return isinstance(codec, _CODECS[self])

    def fit(self, codec: Codec) -> Codec:
        """``codec`` changed such that the gate of a rectifier can be read from its record."""
        if self in (Role.CHANNEL_NORM, Role.KINKED_ACTIVATION):
            return codec.preserving("signs")
        return codec.preserving("zeros") if self is Role.RECTIFIER else codec


_VALUES = (Dense, Uniform)
_ANY_VALUE = (Role.NORM, Role.CHANNEL_NORM, Role.PRODUCT, Role.OPERANDS)
_CODECS: dict[Role, tuple[type[Codec], ...]] = {
    Role.SMOOTH_ACTIVATION: (*_VALUES, Slope),
    Role.KINKED_ACTIVATION: _VALUES,
    Role.BOUNDED_ACTIVATION: _VALUES,
    Role.RECTIFIER: (Mask, Uniform),
    Role.MASK: (Mask,),
    Role.LOSS: (Dense,),
    Role.BLOCK: _VALUES,
    Role.VIEW: (),
}
