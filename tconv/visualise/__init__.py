"""HOW IT IS SEEN: transposed convolution explained cell by cell, as a page and as pictures."""
