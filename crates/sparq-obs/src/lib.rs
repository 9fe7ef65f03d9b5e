//! Second-order engine: Hessian accumulation, factorization, column sweep
#![forbid(unsafe_code)]
