// The names of mathematics: commands of LaTeX with the characters they stand for, as [kind of element, text]. Only data.

const GREEK = "alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ vartheta ϑ iota ι kappa κ lambda λ mu μ nu ν xi ξ omicron ο pi π varpi ϖ rho ρ varrho ϱ sigma σ varsigma ς tau τ upsilon υ phi ϕ varphi φ chi χ psi ψ omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π Sigma Σ Upsilon Υ Phi Φ Psi Ψ Omega Ω infty ∞ partial ∂ nabla ∇ hbar ℏ ell ℓ Re ℜ Im ℑ aleph ℵ emptyset ∅ varnothing ∅ imath ı jmath ȷ wp ℘ angle ∠ triangle △ square □ Box □ blacksquare ■ degree ° checkmark ✓ top ⊤ bot ⊥ ldots … dots … cdots ⋯ vdots ⋮ ddots ⋱ dotsc … dotsb ⋯ prime ′ star ⋆ bigstar ★ dagger † ddagger ‡ clubsuit ♣ diamondsuit ♢ heartsuit ♡ spadesuit ♠ pounds £ S § % % $ $ # # & & _ _";
const SIGNS = "times × cdot ⋅ div ÷ pm ± mp ∓ ast ∗ circ ∘ bullet ∙ oplus ⊕ ominus ⊖ otimes ⊗ odot ⊙ cap ∩ cup ∪ setminus ∖ wedge ∧ land ∧ vee ∨ lor ∨ neg ¬ lnot ¬ forall ∀ exists ∃ nexists ∄ in ∈ notin ∉ ni ∋ subset ⊂ subseteq ⊆ subsetneq ⊊ supset ⊃ supseteq ⊇ le ≤ leq ≤ leqslant ⩽ ge ≥ geq ≥ geqslant ⩾ ne ≠ neq ≠ ll ≪ gg ≫ approx ≈ sim ∼ simeq ≃ cong ≅ equiv ≡ propto ∝ asymp ≍ doteq ≐ prec ≺ succ ≻ preceq ⪯ succeq ⪰ perp ⊥ parallel ∥ mid ∣ nmid ∤ vdash ⊢ models ⊨ to → rightarrow → gets ← leftarrow ← leftrightarrow ↔ Rightarrow ⇒ implies ⟹ Leftarrow ⇐ Leftrightarrow ⇔ iff ⟺ mapsto ↦ longrightarrow ⟶ longleftarrow ⟵ Longrightarrow ⟹ longmapsto ⟼ hookrightarrow ↪ uparrow ↑ downarrow ↓ nearrow ↗ searrow ↘ rightharpoonup ⇀ rightleftharpoons ⇌ therefore ∴ because ∵ colon : lbrace { rbrace } { { } } lbrack [ rbrack ] langle ⟨ rangle ⟩ lceil ⌈ rceil ⌉ lfloor ⌊ rfloor ⌋ vert | Vert ‖ | ‖ lvert | rvert | lVert ‖ rVert ‖ backslash \\ / / lt < gt > sum ∑ prod ∏ coprod ∐ int ∫ iint ∬ iiint ∭ oint ∮ bigcup ⋃ bigcap ⋂ bigoplus ⨁ bigotimes ⨂ bigvee ⋁ bigwedge ⋀ triangleq ≜ coloneqq ≔ lesssim ≲ gtrsim ≳ ltimes ⋉ rtimes ⋊ amalg ⨿ diamond ⋄ upharpoonright ↾";
const pairs = (text, tag) => {
  const words = text.split(" ");
  return words.flatMap((word, n) => (n % 2 ? [] : [[word, [tag, words[n + 1]]]]));
};

export const SYMBOLS = Object.fromEntries([...pairs(GREEK, "mi"), ...pairs(SIGNS, "mo")]);

export const FUNCTIONS = new Set("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp det dim ker deg gcd lcm arg hom Pr lim limsup liminf max min sup inf argmax argmin".split(" "));

/** What carries its scripts below and above where there is room. */
export const LIMITS = new Set([..."∑∏∐⋃⋂⨁⨂⋁⋀", "lim", "limsup", "liminf", "max", "min", "sup", "inf", "det", "gcd", "Pr", "argmax", "argmin"]);

/** What \left and \right may be followed by, as a command. */
export const DELIMITERS = Object.fromEntries(["lbrace", "rbrace", "{", "}", "lbrack", "rbrack", "langle", "rangle", "lceil", "rceil", "lfloor", "rfloor", "vert", "Vert", "|", "lvert", "rvert", "lVert", "rVert", "uparrow", "downarrow"].map((name) => [name, SYMBOLS[name][1]]));

// Letters of other kinds have places of their own in Unicode, but for those that were there before.
const alphabet = (upper, lower, digit, exceptions) => (c) => {
  if (exceptions[c]) return exceptions[c];
  const code = c.codePointAt(0);
  if (code >= 65 && code <= 90 && upper) return String.fromCodePoint(upper + code - 65);
  if (code >= 97 && code <= 122 && lower) return String.fromCodePoint(lower + code - 97);
  return code >= 48 && code <= 57 && digit ? String.fromCodePoint(digit + code - 48) : c;
};
const bold = alphabet(0x1d400, 0x1d41a, 0x1d7ce, {});
const script = alphabet(0x1d49c, 0x1d4b6, 0, { B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ" });

export const VARIANTS = {
  mathbf: bold, boldsymbol: bold, bm: bold, bf: bold,
  mathbb: alphabet(0x1d538, 0x1d552, 0x1d7d8, { C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" }),
  mathcal: script, mathscr: script,
  mathfrak: alphabet(0x1d504, 0x1d51e, 0, { C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ" }),
  mathsf: alphabet(0x1d5a0, 0x1d5ba, 0x1d7e2, {}), mathtt: alphabet(0x1d670, 0x1d68a, 0x1d7f6, {}), mathit: (c) => c,
};
