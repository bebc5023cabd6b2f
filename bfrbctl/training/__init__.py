"""Subject-grouped cross-validation: folds and seeds as tasks, resumable.

`cross_validation.cross_validate` trains what a `job.CrossValidation` describes: each fold leaves a record
(`fold_results`), `step_choice` chooses the numbers of rounds or epochs, and `finish` puts the folds together.
`estimate` says how much time and memory that takes.
"""
