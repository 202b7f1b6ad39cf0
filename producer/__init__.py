"""Producers of patient messages: replay, publish and the ward simulator."""
