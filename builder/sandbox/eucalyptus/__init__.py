"""What the sandbox does otherwise where its personality is Eucalyptus: paths, parameters, registration, S3, Empyrean.

Sources: the code and the documentation of Eucalyptus 4.0 to 5.1 (Corymbia/eucalyptus and its earlier tags), as far as
they say; what was only inferred from them is said where it stands.
"""
