"""The demos: real data and tiny data, and the experts made from them."""
