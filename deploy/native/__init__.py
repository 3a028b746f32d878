"""The native engine: runs programs as C++ steps, compiled on first use. Its results equal deploy.reference's bit for bit."""
