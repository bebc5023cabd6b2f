"""Subject-grouped cross-validation: folds and seeds as tasks, resumable.

`cross_validation.cross_validate` trains, `fold_results` writes what the folds leave, `estimate` foretells
time and memory.
"""
