"""The paper: guidance relaxed along sigma, keys and values blurred over time, and what an intensity asks of both."""
