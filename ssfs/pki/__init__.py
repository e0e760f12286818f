"""Certificates and enrolment codes: pure values and functions, no disk, no network, no clock."""
