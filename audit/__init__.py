"""The oracle: reads the topics and proves or disproves that every message was scored exactly once.

It shares the contract with the worker it judges, but none of the worker's code.
"""
