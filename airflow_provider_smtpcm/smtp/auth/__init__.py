"""Windows Authentication by SASL: Kerberos and NTLM, channel bindings, and remedies for a refused sign-in."""
