"""PostgreSQL: how to read its dumps (`dump`), query its servers (`server`) and handle its files (`cluster`). No Docker.

Procedures import it; programs run through the protocol of `hosts`.
"""
