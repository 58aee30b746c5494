"""Assembly that tests read: for which processors, and where its longest loop is."""

TARGETS = ["haswell", "skylake-avx512", "x86-64", "neoverse-v1", "apple-m1"]


def inner_loop(text):
    """Lines between the label that is jumped back to and that jump, of the longest such loop."""
    lines = text.splitlines()
    places = {line.split(":")[0]: n for n, line in enumerate(lines) if ":" in line}
    found = []
    for n, line in enumerate(lines):
        words = line.split()
        if words and words[0].startswith(("j", "b")) and words[-1] in places:
            start = places[words[-1]]
            if start < n and n - start > len(found):
                found = lines[start:n]
    assert found, "no loop"
    return found
