"""Assembly that tests read: for which processors, and where its longest loop is."""

TARGETS = ["haswell", "skylake-avx512", "x86-64", "neoverse-v1", "apple-m1"]


def inner_loop(text):
    """Lines of the longest loop with none within."""
    return max(inner_loops(text), key=len)


def inner_loops(text):
    """Of every loop with none within the lines from its label to the jump back to it."""
    lines = text.splitlines()
    places = {line.split(":")[0]: n for n, line in enumerate(lines) if ":" in line}
    loops = []
    for n, line in enumerate(lines):
        words = line.split()
        if words and words[0].startswith(("j", "b")) and places.get(words[-1], n) < n:
            loops.append((places[words[-1]], n))
    assert loops, "no loop"
    return [
        lines[start:end]
        for start, end in loops
        if not any(start <= first and last < end for first, last in loops)
    ]
