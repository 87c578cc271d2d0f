"""Checking: what `penstock check` looks at in a project that is well declared.

probe    its code is tried: learners, and derived features in both languages
trap     what it declares is hardly what was meant
"""
