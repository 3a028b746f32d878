"""The native engine: programs as C++ steps, compiled on first use. What it computes is what deploy.reference computes, bit for bit."""
