"""FSE, the entropy code that zstd frames describe Huffman trees and sequences with (RFC 8878, section 4.1)."""


class ZstdError(ValueError):
    """Bytes that are no zstd frame, or not one that holds what is expected."""


def bits_of(data):
    """How many bits a stream that is read from its end has: those below the highest bit set of its last byte."""
    if not data or not data[-1]:
        raise ZstdError("a bit stream is empty or without its end mark")
    return 8 * (len(data) - 1) + data[-1].bit_length() - 1


def description(data, most_accuracy, symbols):
    """The probabilities described at the beginning of `data`, the accuracy, and how many bytes they take."""
    # A description of so many symbols never takes more.
    window = int.from_bytes(data[:512], "little")
    accuracy = (window & 15) + 5
    if accuracy > most_accuracy:
        raise ZstdError(f"an FSE table of accuracy {accuracy}; at most {most_accuracy} is allowed here")
    at = 4
    norm = []
    left = 1 << accuracy
    while left:
        bits = (left + 1).bit_length()
        value = window >> at & ((1 << bits) - 1)
        low_mask = (1 << (bits - 1)) - 1
        threshold = (1 << bits) - 1 - (left + 1)
        if value & low_mask < threshold:
            value &= low_mask
            at += bits - 1
        else:
            if value > low_mask:
                value -= threshold
            at += bits
        norm.append(value - 1)
        left -= abs(value - 1)
        if left < 0:
            raise ZstdError("the probabilities of an FSE table add up to too much")
        if value == 1:
            while True:
                repeat = window >> at & 3
                at += 2
                norm += [0] * repeat
                if repeat < 3 or len(norm) > symbols:
                    break
        if len(norm) > symbols:
            raise ZstdError(f"an FSE table of more than {symbols} symbols")
    size = (at + 7) // 8
    if size > len(data):
        raise ZstdError("the description of an FSE table is cut off")
    return norm, accuracy, size


def table(norm, accuracy):
    """For each state: its symbol, the number of bits to read, and what to add to them for the next state."""
    size = 1 << accuracy
    symbols = [0] * size
    high = size
    for symbol, count in enumerate(norm):
        if count == -1:
            high -= 1
            symbols[high] = symbol
    step, at = (size >> 1) + (size >> 3) + 3, 0
    for symbol, count in enumerate(norm):
        for _ in range(max(count, 0)):
            symbols[at] = symbol
            at = at + step & size - 1
            while at >= high:
                at = at + step & size - 1
    following = [abs(count) for count in norm]
    states = []
    for symbol in symbols:
        number = following[symbol]
        following[symbol] += 1
        bits = accuracy - (number.bit_length() - 1)
        states.append((symbol, bits, (number << bits) - size))
    return states


def interleaved(states, accuracy, data):
    """The symbols of a stream with two states that take turns, to its last bit."""
    left = bits_of(data)
    window = int.from_bytes(data, "little")
    if left < 2 * accuracy:
        raise ZstdError("a stream of Huffman weights is cut off")
    mask = (1 << accuracy) - 1
    left -= accuracy
    turn = window >> left & mask
    left -= accuracy
    other = window >> left & mask
    out = []
    while len(out) < 256:
        symbol, bits, base = states[turn]
        out.append(symbol)
        if bits > left:
            out.append(states[other][0])
            return out
        left -= bits
        turn, other = other, base + (window >> left & ((1 << bits) - 1))
    raise ZstdError("more than 255 Huffman weights")
