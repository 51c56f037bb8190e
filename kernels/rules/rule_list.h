/* Every rule, once: QR_RULE(identifier, name, parameters, summary, reference). Include it with QR_RULE defined. */
QR_RULE(VOTER, "voter", "", "adopts the vote of a random neighbour",
        "Clifford and Sudbury 1973; Holley and Liggett 1975")
QR_RULE(MAJORITY, "majority", "samples", "adopts the most frequent option among all, or r sampled, neighbours",
        "Galam 2002; Krapivsky and Redner 2003")
QR_RULE(Q_VOTER, "q_voter", "q epsilon", "adopts the option on which q sampled neighbours agree",
        "Castellano, Munoz and Pastor-Satorras 2009")
QR_RULE(POTTS, "potts", "temperature dynamics", "thermal spins, energy -sum of delta(s_i, s_j); K = 2 is Ising",
        "Potts 1952; Wu 1982")
QR_RULE(BEST_OF_N, "best_of_n", "qualities", "copies an option with probability ~ quality x share among neighbours",
        "Valentini, Ferrante and Dorigo 2017")
QR_RULE(NEURAL, "neural", "state_dim hidden dt temperature weights weight_scale state_scale",
        "small recurrent network of shared weights, votes by softmax", "formulas in kernels/rules/neural.h")
